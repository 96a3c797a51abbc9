"""Reading audio: decoding, resampling, and the log-mel front end."""
