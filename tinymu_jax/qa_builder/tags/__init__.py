"""The tag vocabulary and how tags occur together."""
