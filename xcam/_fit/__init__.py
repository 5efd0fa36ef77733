"""The verb `fit`, and `accuracy`, which measures what came of it."""

from xcam._fit.counting import accuracy
from xcam._fit.verb import fit

__all__ = ["accuracy", "fit"]
