"""Maps, and logits, that are linear functions of the image."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from xcam.core import Method, MethodSpec


@dataclass(frozen=True, eq=False, repr=False)
class Multiple(Method):
    """The image itself, several times as large, and a constant added."""

    factor: float = 1.0
    added: float = 0.0

    spec: ClassVar[MethodSpec] = MethodSpec("multiple", "Multiple", "", "control", "none")

    def maps(self, model, images, target):
        return self.factor * images.sum(1) + self.added


class Linear(nn.Module):
    """Two logits that are linear in the image."""

    def __init__(self, image):
        super().__init__()
        self.register_buffer(
            "weight", torch.linspace(-1, 1, 2 * image.numel()).view(2, *image.shape)
        )

    def forward(self, images):
        return torch.einsum("bchw,kchw->bk", images, self.weight) + 1.0
