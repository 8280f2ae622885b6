"""Linear layers rebuilt from factors: one file per method."""
