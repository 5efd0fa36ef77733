"""Nets that the published code of CA-Stream has trained."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from xcam._explain.prepared import resolve_method
from xcam.checkpoints.published.renaming import load_renamed
from xcam.core import find_headed
from xcam.methods.trainable.castream import CAStream
from xcam.models.state_dicts import read_state_dict

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["import_castream"]

# The blocks of ResNets have names, those of other nets numbers; one alone has neither.
_BLOCK = re.compile(r"(base|l[1-4]|cls_surrogate|cls_stream\.\d+|cls_stream)\.(to_.+)")
_FEEDFORWARD = re.compile(r"ff([b1-4])\.mlp\.([03])\.(.+)")
_PARTS = {
    r"^to_out\.(\d\.)?": "project.",
    r"^to_k\.1\.": "key.",
    r"^to_v\.1\.": "value.",
}


def import_castream(
    path: str | Path,
    model: nn.Module,
    **params: Any,  # noqa: ANN401
) -> tuple[nn.Module, pd.DataFrame]:
    """Read a net from a checkpoint of the published CA-Stream code.

    The weights of classifier and stream are in the file. What is not in it is the structure: that
    of the classifier, which `model` gives, and the variant and the heads of the stream. All weights
    fit any number of heads, and give other logits: if the net was trained with `--heads 2`, give
    `heads=2`. `placement="released"` is taken if no other is given: in ConvNeXts the published code
    has four blocks. The file is read as weights alone, no code in it runs. The published code is
    under the MIT licence; its authors have published no weights, and the names in files of
    EfficientNets and MobileNetV2 are unverified.

        model = xcam.models.load("torchvision:resnet50", num_classes=1000)
        net, report = import_castream("best_model.pth", model)

    Args:
        path: The file.
        model: A classifier like the one in the file, with any weights; left as it was.
        **params: Hyper-parameters of `xcam.methods.CAStream`, such as `variant="final"`.

    Returns:
        The net, ready to explain; and a table with a row for each tensor of the net: `file`, its
        name in the file, `net`, its name in the net, and `shape`.

    Raises:
        TypeError: A parameter that the method does not have.
        ValueError: A parameter out of its range.
        LayerError: The classifier has no pooled features, or not these layers.
        FileNotFoundError: There is no such file.
        FileFormatError: No such checkpoint, or one of another net or variant; the names that do not
            fit are listed, in the file's words where the net has no such tensor. Or a tensor with
            values that are NaN or infinite, by its name in the file.
    """
    saved = read_state_dict(Path(path))
    chosen = cast(CAStream, resolve_method("castream", {"placement": "released", **params}))
    net = chosen.attach(model)
    return net.eval(), load_renamed(path, saved, find_headed(net), _match_names(saved))


def _match_names(saved: Iterable[str]) -> dict[str, str]:
    """Return the net's name of each tensor of a file, by its name there."""
    saved = [*saved]
    blocks = {found[1] for name in saved if (found := _BLOCK.fullmatch(name))}
    numbers = {block: index for index, block in enumerate(sorted(blocks, key=_rank))}
    return {name: _rename(name, numbers) for name in saved}


def _rank(block: str) -> int:
    """Return where in the stream a block of the file is: `base` is the first one."""
    number = re.search(r"\d+$", block)
    return int(number[0]) if number else 0


def _rename(name: str, numbers: dict[str, int]) -> str:
    if name == "cls_token":
        return "head.token"
    if found := _BLOCK.fullmatch(name):
        part = found[2]
        for pattern, own in _PARTS.items():
            part = re.sub(pattern, own, part)
        return f"head.blocks.{numbers[found[1]]}.{part}"
    if found := _FEEDFORWARD.fullmatch(name):
        block = "base" if found[1] == "b" else f"l{found[1]}"
        layer = {"0": 0, "3": 2}[found[2]]  # a dropout comes before the second one
        return f"head.blocks.{numbers.get(block, 0)}.feedforward.{layer}.{found[3]}"
    return f"classifier.{name}"
