"""The attention-mask explorer: one view over every method and every source of queries and keys."""
