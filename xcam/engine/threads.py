"""Nets that run their layers in threads of their own, where hooks do not act."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from xcam.engine.skeleton import skeleton
from xcam.engine.trace import hooks
from xcam.engine.wrappers import eager
from xcam.forks import importing

__all__ = ["calls_in_threads", "describe_threads"]


def calls_in_threads(net: nn.Module, images: Tensor, layer: str | None = None) -> bool:
    """Return whether a net calls its layers in other threads than the one that runs it.

    Watched is a copy on the meta device, which nobody else runs.

    Args:
        net: Without wrappers.
        images: (B, C, H, W); only their shape and dtype count.
        layer: The layer that is meant; None for any.
    """
    thread = threading.get_native_id()
    seen: set[int] = set()

    def note_thread(_inputs: object) -> None:
        seen.add(threading.get_native_id())

    with importing(), torch.no_grad(), eager(), ExitStack() as stack:
        try:
            empty = skeleton(net)
            for name, module in empty.named_modules():
                if name and layer in (None, name):
                    stack.enter_context(hooks(module, before=note_thread, acts=lambda: True))
            empty(torch.empty(1, *images.shape[1:], dtype=images.dtype, device="meta"))
        except Exception:  # whatever the model does that needs values: it may have been seen before
            pass
    return bool(seen - {thread})


def describe_threads(what: str) -> str:
    """Describe a net whose layers cannot be read, and the remedy.

    Args:
        what: The subject and the verb of the sentence.
    """
    return (
        f"{what} in a thread of its own, where no layer can be read; explain the module that the "
        "thread runs, or use a method that reads no layer, such as 'rise'"
    )
