"""The verb `evaluate`: methods scored by metrics on a data set."""

from xcam._evaluate.verb import evaluate

__all__ = ["evaluate"]
