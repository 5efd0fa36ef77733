"""Weights that the published code of a paper has trained."""
