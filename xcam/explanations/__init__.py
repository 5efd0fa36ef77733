"""Explanations on disk and in pictures: saving, stored maps, figures, stability."""
