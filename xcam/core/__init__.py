"""The nouns: methods, targets, explanations, metrics."""

from xcam.core.explanation import Explanation, SavedMethod
from xcam.core.method import Family, Method, MethodSpec, Reduce, TrainableMethod
from xcam.core.metric import Metric, MetricSpec, Question, Truth
from xcam.core.settings import Settings
from xcam.core.target import Output, ScoreFunction, Target, TargetLike, extract_logits

__all__ = [
    "Explanation",
    "Family",
    "Method",
    "MethodSpec",
    "Metric",
    "MetricSpec",
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
