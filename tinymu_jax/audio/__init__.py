"""Audio: decoding, resampling, the log-mel front end, and its plot."""
