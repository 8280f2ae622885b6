"""Models of machines."""
