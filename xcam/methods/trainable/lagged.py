"""An average of a net's weights over its training steps, carried by the net itself."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from xcam.core import Headed

__all__ = ["Lagged"]


class Lagged(nn.Module):
    """A copy of a net, in eval mode, whose weights follow those of the net step by step.

    They are buffers: so they belong to the state of the net that holds them, to be saved and
    resumed, while no optimizer sees them, and the loss may write to them as to running statistics.

    Args:
        headed: The net.

    Attributes:
        net: The copy.
        version: The number of changes of the net's weights at the last update.
    """

    def __init__(self, headed: Headed) -> None:
        super().__init__()
        self.net, self.version = copy.deepcopy(headed), -1
        for module in self.net.modules():
            for name, parameter in [*module._parameters.items()]:
                del module._parameters[name]
                values = None if parameter is None else parameter.detach().clone()
                module.register_buffer(name, values)
        self.eval()

    @torch.no_grad()
    def update(self, headed: Headed, keep: float) -> None:
        """Set each value a to keep · a + (1 − keep) · w, with w of the net, if that has changed.

        Whole numbers, such as counts, are those of the net. All parts of a step see the same
        weights, of which torch counts the changes: the first part makes the update.
        """
        version = sum(parameter._version for parameter in headed.parameters())
        if version == self.version:
            return
        self.version = version
        current = dict(_list_tensors(headed))
        for name, average in _list_tensors(self.net):
            value = current[name].detach()
            if average.is_floating_point() or average.is_complex():
                average.lerp_(value, 1 - keep)
            else:
                average.copy_(value)


def _list_tensors(net: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from net.named_parameters()
    yield from net.named_buffers()
