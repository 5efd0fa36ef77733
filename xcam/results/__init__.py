"""The results of an evaluation: tables, intervals, comparisons, ranks and curves from its rows."""

from xcam.results.results import Results
from xcam.results.retraining import RetrainingResults

__all__ = ["Results", "RetrainingResults"]
