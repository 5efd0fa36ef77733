"""Attributions from the score's gradient at the image."""
