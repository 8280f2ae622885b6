"""Our own raster widget for large matrices."""
