"""The tag vocabulary and tag co-occurrence."""
