"""Audio: decoding and resampling of recordings, the log-mel front end, and plots of log-mels."""
