"""Models made smaller: by fewer channels, by factors, by other structure."""
