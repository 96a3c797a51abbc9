"""General helpers, independent of music and models."""
