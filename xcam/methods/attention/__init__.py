"""Methods that show the attention that a net computes itself."""
