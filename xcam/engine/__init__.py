"""The caller's model: found in its wrappers, read from the inside, left as it was."""

from xcam.engine.capturing import Capture, capture, replaced
from xcam.engine.restore import gradients, random_states, untouched
from xcam.engine.wrappers import Layer, eager, find_module, unwrap

__all__ = [
    "Capture",
    "Layer",
    "capture",
    "eager",
    "find_module",
    "gradients",
    "random_states",
    "replaced",
    "untouched",
    "unwrap",
]
