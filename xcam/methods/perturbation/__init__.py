"""Maps from what the model makes of changed images or features."""
