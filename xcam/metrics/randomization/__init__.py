"""Metrics that change the model, the class or the input, and ask what that does to the map."""
