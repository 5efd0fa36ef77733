"""Planted cues: images in which the pixels that decide the class are known."""
