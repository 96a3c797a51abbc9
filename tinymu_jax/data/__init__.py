"""From lists of recordings and questions to batches of packed rows."""
