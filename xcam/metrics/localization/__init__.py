"""Metrics that compare the map with the object's box or mask."""
