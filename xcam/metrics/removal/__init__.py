"""Metrics that remove pixels in the order of the map."""
