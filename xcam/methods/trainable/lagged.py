"""An average of a net's weights over its training steps, carried by the net itself."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from xcam.core import Headed

__all__ = ["make_lagged", "update_lagged"]


def make_lagged(headed: Headed) -> Headed:
    """Return a copy of a net whose weights are buffers, in eval mode.

    So it belongs to the state of the net that holds it, to be saved and resumed, while no optimizer
    sees it, and the loss may write to it as to running statistics.
    """
    lagged = copy.deepcopy(headed)
    for module in lagged.modules():
        for name, parameter in [*module._parameters.items()]:
            del module._parameters[name]
            module.register_buffer(name, None if parameter is None else parameter.detach().clone())
    return lagged.eval()


@torch.no_grad()
def update_lagged(lagged: Headed, headed: Headed, keep: float) -> None:
    """Set each value a to keep · a + (1 − keep) · w, with w of the current net.

    Whole numbers, such as counts, are those of the current net.
    """
    current = dict(_list_tensors(headed))
    for name, average in _list_tensors(lagged):
        value = current[name].detach()
        if average.is_floating_point() or average.is_complex():
            average.lerp_(value, 1 - keep)
        else:
            average.copy_(value)


def _list_tensors(net: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from net.named_parameters()
    yield from net.named_buffers()
