"""The nouns: methods, targets, explanations, metrics."""

from xcam.core.explanation import Explanation
from xcam.core.headed import (
    Headed,
    attached_method,
    check_fitted,
    check_headless,
    find_headed,
)
from xcam.core.method import FAMILIES, Method, MethodSpec, Reduce, SavedMethod, TrainableMethod
from xcam.core.metric import QUESTIONS, Metric, MetricSpec, Truth
from xcam.core.notes import Note
from xcam.core.settings import Count, NonNegative, Positive, Range, Settings, Share
from xcam.core.target import Output, ScoreFunction, Target, TargetLike, extract_logits

__all__ = [
    "FAMILIES",
    "QUESTIONS",
    "Count",
    "Explanation",
    "Headed",
    "Method",
    "MethodSpec",
    "Metric",
    "MetricSpec",
    "NonNegative",
    "Note",
    "Output",
    "Positive",
    "Range",
    "Reduce",
    "SavedMethod",
    "ScoreFunction",
    "Settings",
    "Share",
    "Target",
    "TargetLike",
    "TrainableMethod",
    "Truth",
    "attached_method",
    "check_fitted",
    "check_headless",
    "extract_logits",
    "find_headed",
]
