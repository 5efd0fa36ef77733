"""Methods whose map comes from a trained head."""
