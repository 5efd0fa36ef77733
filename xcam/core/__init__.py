"""The nouns: methods, targets, explanations, metrics."""

from xcam.core.explanation import Explanation
from xcam.core.finite import (
    check_finite,
    check_logits,
    describe_unreadable,
    find_unreadable,
    mark_unreadable,
)
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
from xcam.core.several import (
    check_num_labels,
    compute_class_loss,
    has_independent_classes,
    independent_classes,
    is_multi_label,
    require_single_labels,
)
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
    "check_finite",
    "check_fitted",
    "check_headless",
    "check_logits",
    "check_num_labels",
    "compute_class_loss",
    "describe_unreadable",
    "extract_logits",
    "find_headed",
    "find_unreadable",
    "has_independent_classes",
    "independent_classes",
    "is_multi_label",
    "mark_unreadable",
    "require_single_labels",
]
