"""Fast transforms and structured matrices."""
