"""Metrics that compare the map with where the object is."""
