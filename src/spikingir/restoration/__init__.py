"""From image file to image file: reading, tiling, restoring, writing."""
