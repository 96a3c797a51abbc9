"""Linear probes on the encoder's embeddings."""
