"""Nets that the published code of CALM has trained."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from xcam._explain.prepared import resolve_method
from xcam.checkpoints.published.renaming import load_renamed
from xcam.core import Headed, find_headed
from xcam.methods.trainable.calm import CALM
from xcam.models.state_dicts import read_state_dict

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["import_calm"]

# What the published code does, where it is not what the paper says.
_RELEASED = {"prior": "relu", "normalizer_gradient": "detached"}
_HEAD = {"conv_last.": "head.conv_last.", "attention.0.": "head.attention."}


def import_calm(
    path: str | Path,
    model: nn.Module,
    **params: Any,  # noqa: ANN401
) -> tuple[nn.Module, pd.DataFrame]:
    """Read a net from a checkpoint (.pth.tar) of the published CALM code.

    All of its weights are in the file. What is not in it is the structure, which `model` gives:
    depth, number of classes, and whether the feature map is the large one. All of the weights fit
    either map, and give other logits: the command of the published code for CUB takes the large
    one. `prior="relu"` and `normalizer_gradient="detached"` are taken if others are not given; for
    a net of the CAM baseline give `loss="cam"`. The file is read as weights alone, no code in it
    runs. The published code is under the MIT licence, and states no other for its weights.

        model = xcam.models.load("xcam:calm_resnet", num_classes=200, large_feature_map=True)
        net, report = import_calm("last_checkpoint.pth.tar", model)

    Args:
        path: The file.
        model: A classifier like the one in the file, with any weights; left as it was:
            `xcam:calm_resnet`, or another of CALM's nets.
        **params: Hyper-parameters of `xcam.methods.CALM`.

    Returns:
        The net, ready to explain; and a table with a row for each tensor of the net: `file`, its
        name in the file, `net`, its name in the net, and `shape`. Files of old versions of torch
        lack batch norms' counts of batches: their `file` is empty, and they start from 0.

    Raises:
        TypeError: A parameter that the method does not have.
        ValueError: A parameter out of its range, or a ResNet with a last stage of stride 2.
        LayerError: No such layer in the model.
        FileNotFoundError: There is no such file.
        FileFormatError: No such checkpoint, or one of another net; the names that do not fit are
            listed, in the file's words where the net has no such tensor. Or a tensor with values
            that are NaN or infinite, by its name in the file.
    """
    saved = read_state_dict(Path(path))
    chosen = cast(CALM, resolve_method("calm", {**_RELEASED, **params}))
    net = chosen.attach(model)
    headed = find_headed(net)
    _check_stride(headed)
    return net.eval(), load_renamed(path, saved, headed, _match_names(saved))


def _check_stride(headed: Headed) -> None:
    """Refuse a net that all weights fit, but which is not the one that they were trained in."""
    stage = getattr(headed.classifier, "layer4", None)
    if stage is None:
        return
    if any(isinstance(m, nn.Conv2d) and m.stride != (1, 1) for m in stage.modules()):
        raise ValueError(
            f"the last stage of this {type(headed.classifier).__name__} has stride 2, and that of "
            "CALM's ResNets has 1; give xcam.models.load('xcam:calm_resnet', depth=…, "
            "num_classes=…, large_feature_map=…)"
        )


def _match_names(saved: Iterable[str]) -> dict[str, str]:
    """Return the net's name of each tensor of a file, by its name there."""
    names = {}
    for name in saved:
        own = next((o + name.removeprefix(p) for p, o in _HEAD.items() if name.startswith(p)), None)
        names[name] = own or f"classifier.{name}"
    return names
