"""Controls: maps that know nothing of the model, which every method should beat."""
