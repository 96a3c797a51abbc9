"""What a run trains: answers, self-supervision, or a linear head on the encoder."""
