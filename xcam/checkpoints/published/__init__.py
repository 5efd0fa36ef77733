"""Importers of weights that the published code of papers has trained."""
