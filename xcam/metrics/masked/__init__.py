"""Metrics that mask the image by its map."""
