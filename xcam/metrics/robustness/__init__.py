"""Metrics of what becomes of a map when the image changes a little."""
