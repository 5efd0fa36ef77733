"""The nouns: methods, targets, explanations, metrics."""

from xcam.core.explanation import Explanation, SavedMethod
from xcam.core.method import Family, Method, MethodSpec, Reduce, TrainableMethod
from xcam.core.metric import Metric, MetricSpec, Question, Truth
from xcam.core.settings import Recipe
from xcam.core.target import Score, ScoreFunction, Target, TargetLike, as_logits

__all__ = [
    "Explanation",
    "Family",
    "Method",
    "MethodSpec",
    "Metric",
    "MetricSpec",
    "Question",
    "Recipe",
    "Reduce",
    "SavedMethod",
    "Score",
    "ScoreFunction",
    "Target",
    "TargetLike",
    "TrainableMethod",
    "Truth",
    "as_logits",
]
