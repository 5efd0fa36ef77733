"""Explanations from files: loading, folders of stored maps, how far two folders agree."""
