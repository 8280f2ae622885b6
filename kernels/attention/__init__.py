"""Attention over dense, block-sparse and token-level masks."""
