"""Training tasks: fine-tuning on questions, pre-training, and encoder training on labels."""
