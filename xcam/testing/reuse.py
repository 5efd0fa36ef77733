"""A net that is used for another call as long as calls leave it as it was."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from xcam.engine.structure import list_tensors, remember, walk

__all__ = ["ReusedNet"]


class ReusedNet:
    """A net, and how it was when it was built."""

    def __init__(self) -> None:
        self._net: nn.Module | None = None
        self._state: list[object] = []
        self._values: list[Tensor] = []

    def get(self, build: Callable[[], nn.Module]) -> nn.Module:
        """Return the net if it is as it was, with all that was found out about it, else a new one.

        Compared are the structure as `remember` compares it, modes, and of each parameter and
        buffer its values, `requires_grad`, `.grad` and hooks.
        """
        if self._net is None or not self._is_intact(self._net):
            self._net = build()
            self._state = _describe(self._net)
            self._values = [tensor.detach().clone() for tensor in list_tensors(self._net)]
        return self._net

    def _is_intact(self, net: nn.Module) -> bool:
        return _describe(net) == self._state and all(
            torch.equal(tensor, values)
            for tensor, values in zip(list_tensors(net), self._values, strict=True)
        )


def _describe(net: nn.Module) -> list[object]:
    found: list[object] = [remember(net, "reused", object)]  # another object after a change
    found += [getattr(module, "training", None) for module in walk(net)]
    for tensor in list_tensors(net):
        hooks = tensor._backward_hooks
        found += [id(tensor), tensor.requires_grad, tensor.grad is None, hooks and list(hooks)]
    return found
