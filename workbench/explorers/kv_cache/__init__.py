"""The explorer of compressed caches: keys and values of a model, compressed as GEAR does, taken apart."""
