"""Methods whose map comes from a trained head, and what one is made of."""

from xcam.methods.trainable.backbone import Backbone
from xcam.methods.trainable.heads import check_same_head, compute_slopes, read_head
from xcam.methods.trainable.taps import Place, check_map, features, tapped

__all__ = [
    "Backbone",
    "Place",
    "check_map",
    "check_same_head",
    "compute_slopes",
    "features",
    "read_head",
    "tapped",
]
