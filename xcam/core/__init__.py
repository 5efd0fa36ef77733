"""The nouns: methods, targets, explanations, metrics."""

from xcam.core.explanation import Explanation
from xcam.core.method import Family, Method, MethodSpec, Reduce, SavedMethod, TrainableMethod
from xcam.core.metric import Metric, MetricSpec, Question, Truth
from xcam.core.notes import Note
from xcam.core.settings import Settings
from xcam.core.target import Output, ScoreFunction, Target, TargetLike, extract_logits

__all__ = [
    "Explanation",
    "Family",
    "Method",
    "MethodSpec",
    "Metric",
    "MetricSpec",
    "Note",
    "Output",
    "Question",
    "Reduce",
    "SavedMethod",
    "ScoreFunction",
    "Settings",
    "Target",
    "TargetLike",
    "TrainableMethod",
    "Truth",
    "extract_logits",
]
