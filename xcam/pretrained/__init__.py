"""Small trained nets that come with xcam: a classifier of Fashion-MNIST, and one for each head.

`examples/train_fashion_mnist.py` made their files.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import nn

import xcam  # whose names load on first use: this module comes with every look for plugins
from xcam.errors import unknown
from xcam.hookspecs import hookimpl

__all__ = ["FOLDER", "HEADS", "xcam_models"]

FOLDER = Path(__file__).parent
HEADS = ("abn", "calm", "castream", "lcam_fm", "lcam_img", "lficam")


@hookimpl
def xcam_models() -> dict[str, Callable[..., nn.Module]]:
    """Return the trained nets."""
    names = ("fashion_mnist", *(f"fashion_mnist_{head}" for head in HEADS))
    return {f"xcam:{name}": partial(_load, name) for name in names}


def _load(name: str, /, weights: str | None = "DEFAULT") -> nn.Module:
    if weights != "DEFAULT":
        raise unknown(f"weights of xcam:{name}", str(weights), ["DEFAULT"])
    net: nn.Module = xcam.load(FOLDER / f"{name}.safetensors")
    return net
