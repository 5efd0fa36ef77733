"""Controls: maps that do not depend on the model, which every method should beat."""
