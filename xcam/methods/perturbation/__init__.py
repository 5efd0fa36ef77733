"""Maps from the model's scores of changed images or features."""
