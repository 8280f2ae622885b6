"""Sparse fine-tuning and pre-training: one file per method, one way to put each into a model, and one training loop."""
