"""The attention-mask explorer."""
