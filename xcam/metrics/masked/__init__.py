"""Metrics that show the model the image through its map."""
