"""Linear probes: classifiers trained on the embeddings of a frozen encoder."""
