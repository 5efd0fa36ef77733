"""MixUp and CutMix: images and labels of a batch, mixed in pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor

from xcam.core.instantiate import check_names

__all__ = ["Mixing", "mixing"]

Mixing: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def mixing(mix: Mapping[str, float], classes: int) -> Mixing | None:
    """What mixes images (B, C, H, W) and labels (B,) into images and shares of classes (B, K).

    Args:
        mix: The α of `"mixup"` (Zhang et al., 2018), of `"cutmix"` (Yun et al., 2019), or of both;
            of several one is drawn at random a batch. Empty for none.
        classes: Their number K.

    Raises:
        TypeError: `mix` is no mapping, or holds another name.
        ValueError: An α is not above 0.
    """
    if not isinstance(mix, Mapping):
        raise TypeError(f"mix must be a mapping such as {{'mixup': 0.2}}, got {mix!r}")
    check_names("mix", mix, ["mixup", "cutmix"])
    for name, alpha in mix.items():
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not alpha > 0:
            raise ValueError(f"mix: {name} must be a number above 0, got {alpha!r}")
    if not mix:
        return None
    from torchvision.transforms import v2

    kinds = {"mixup": v2.MixUp, "cutmix": v2.CutMix}
    each = [kinds[name](alpha=float(alpha), num_classes=classes) for name, alpha in mix.items()]
    choice: Mixing = v2.RandomChoice(each) if len(each) > 1 else each[0]
    return choice
