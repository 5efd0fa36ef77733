"""Nets that the published code of LFI-CAM has trained."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from xcam._explain.prepared import resolve_method
from xcam.checkpoints.published.renaming import load_renamed, rename
from xcam.core import Headed, find_headed
from xcam.methods.trainable.lficam import LFICAM, FeatureImportance
from xcam.models.state_dicts import read_state_dict

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["import_lficam"]


def import_lficam(
    path: str | Path,
    model: nn.Module,
    **params: Any,  # noqa: ANN401
) -> tuple[nn.Module, pd.DataFrame]:
    """Read a net from a checkpoint (.pth.tar) of the published LFI-CAM code.

    All of its weights are in the file. What is not in it is the structure: the `model`, and for
    ResNets of ImageNet's kind the stride of the stem, which must be given. The published code ends
    with `stem_stride=1`, maps of 14x14 for images of 224 pixels; its older nets have 2, maps of
    7x7, and half the ReLUs in FIN, as have its nets for CIFAR: for files of these
    `fin_relu="alternate"` is taken if none is given. The file is read as weights alone, no code in
    it runs. The published code and its weights state no licence: ask its authors before you pass
    them on.

        model = xcam.models.load("xcam:cifar_resnet", depth=110, num_classes=10)
        net, report = import_lficam("model_best.pth.tar", model)

    Args:
        path: The file.
        model: A classifier like the one in the file, with any weights; left as it was:
            `xcam:cifar_resnet`, `cifar_resnext`, `cifar_densenet`, or a ResNet of torchvision's.
            Its mean and deviation are those that the net was trained with; STL-10's are CIFAR-10's
            there.
        **params: Hyper-parameters of `xcam.methods.LFICAM`.

    Returns:
        The net, ready to explain; and a table with a row for each tensor of the net: `file`, its
        name in the file, `net`, its name in the net, and `shape`. Files of old versions of torch
        lack batch norms' counts of batches: their `file` is empty, and they start from 0.

    Raises:
        TypeError: A parameter that the method does not have.
        ValueError: A parameter out of its range, or no `stem_stride` where one must be given.
        LayerError: No such layer or stem in the model.
        FileNotFoundError: There is no such file.
        FileFormatError: No such checkpoint, or one of another net; the names that do not fit are
            listed, in the file's words where the net has no such tensor. Or a tensor with values
            that are NaN or infinite, by its name in the file.
    """
    saved = read_state_dict(Path(path))
    net = _choose_method(path, saved, params).attach(model)
    headed = find_headed(net)
    report = load_renamed(path, saved, headed, _match_names(saved, headed))
    return net.eval(), report


def _choose_method(path: str | Path, saved: Iterable[str], params: dict[str, Any]) -> LFICAM:
    """Choose the method's fields that the file's kind of net has in the published code."""
    chosen = cast(LFICAM, resolve_method("lficam", params))
    for_imagenet = any(name.startswith("att_") for name in saved)
    if (
        for_imagenet and chosen.stem_stride is None
    ):  # with the wrong one all weights fit, and the logits are others
        raise ValueError(
            f"{str(path)!r} is of a ResNet for ImageNet and does not say the stride of its stem: "
            "give stem_stride=1 for the published code as it ends (maps of 14x14), or "
            "stem_stride=2 for its older nets (7x7)"
        )
    if chosen.fin_relu is None and (not for_imagenet or chosen.stem_stride == 2):
        return replace(chosen, fin_relu="alternate")
    return chosen


def _match_names(saved: Iterable[str], headed: Headed) -> dict[str, str]:
    """Return the net's name of each tensor of a file, by its name there."""
    fin = cast(FeatureImportance, headed.head).fin
    weighted = [i for i, module in enumerate(fin) if [*module.parameters()]]
    names = {}
    for name in saved:
        place, leaf = _parse_fin_name(name)
        if place is not None:
            names[name] = f"head.fin.{weighted[place]}.{leaf}"
        else:
            names[name] = f"classifier.{rename(name, headed.classifier)}"
    return names


def _parse_fin_name(name: str) -> tuple[int | None, str]:
    """Return which of FIN's eight convolutions and norms has a tensor, and its name there."""
    listed = re.fullmatch(r"attention\.([0-8])\.(\w+)", name)
    if listed and listed[1] != "4":  # a ReLU
        index = int(listed[1])
        return index - (index > 4), listed[2]
    named = re.fullmatch(r"att_(conv|bn)([1-4])\.(\w+)", name)
    if named:
        return 2 * (int(named[2]) - 1) + (named[1] == "bn"), named[3]
    return None, ""
