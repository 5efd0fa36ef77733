"""The caller's model: found in its wrappers, read from the inside, left as it was."""

from xcam.engine.capturing import Capture, capture, replace_output
from xcam.engine.restore import gradients, random_states, untouched
from xcam.engine.trace import Call, Trace, hooks, record_pass
from xcam.engine.wrappers import Layer, eager, find_module, unwrap

__all__ = [
    "Call",
    "Capture",
    "Layer",
    "Trace",
    "capture",
    "eager",
    "find_module",
    "gradients",
    "hooks",
    "random_states",
    "record_pass",
    "replace_output",
    "untouched",
    "unwrap",
]
