"""The random weights that CALM's nets begin with, and those that are taken from torchvision."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["copy_weights", "initialize_kaiming", "initialize_xavier"]


def initialize_xavier(net: nn.Module) -> None:
    """Draw the convolutions' weights by Glorot and Bengio's uniform rule; their biases are 0."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
            _zero_bias(module)


def initialize_kaiming(net: nn.Module) -> None:
    """Draw the convolutions' weights by He et al.'s normal rule, by fan-out; their biases are 0."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            _zero_bias(module)


def _zero_bias(module: nn.Conv2d) -> None:
    if module.bias is not None:
        nn.init.zeros_(module.bias)


@torch.no_grad()
def copy_weights(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy the tensors of a state dict that a net has, too; its last layer stays as it was."""
    own = net.state_dict()
    for name, tensor in state.items():
        if name in own and not name.startswith("fc."):
            own[name].copy_(tensor)
