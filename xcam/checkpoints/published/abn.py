"""Nets that the published code of ABN has trained."""

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
from xcam.methods.trainable.abn import ABN
from xcam.models.state_dicts import read_state_dict

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["import_abn"]

# Modules of the branch behind its copy of the last stage.
_BRANCH = {
    "bn_att": "responses.0",
    "att_conv": "responses.1",
    "bn_att2": "responses.2",
    "att_conv3": "attention.0",
    "bn_att3": "attention.1",
    "att_conv2": "auxiliary",
}
_STAGE_OF_RESNEXT = re.compile(r"^stage_att\.stage_att_")


def import_abn(
    path: str | Path,
    model: nn.Module,
    **params: Any,  # noqa: ANN401
) -> tuple[nn.Module, pd.DataFrame]:
    """Read a net from a checkpoint (.pth.tar) of the published ABN code.

    All of its weights are in the file: the classifier's and the branch's. The published ResNeXt has
    a batch norm behind the copy of its last stage that it never calls: `branch_norm=False` is taken
    for its files if none is given, and that norm's tensors are not used. The published SE-ResNet,
    whose map is another, is refused. The file is read as weights alone, no code in it runs. The
    published code is under the MIT licence, and states no other for its weights.

        model = xcam.models.load("xcam:cifar_resnet", depth=110, num_classes=100)
        net, report = import_abn("model_best.pth.tar", model)

    Args:
        path: The file.
        model: A classifier like the one in the file, with any weights; left as it was:
            `xcam:cifar_resnet`, `cifar_resnext`, `cifar_densenet`, `cifar_wide_resnet`, or a ResNet
            of torchvision's. Its mean and deviation are those that the net was trained with.
        **params: Hyper-parameters of `xcam.methods.ABN`.

    Returns:
        The net, ready to explain; and a table with a row for each tensor of the net: `file`, its
        name in the file, `net`, its name in the net, and `shape`. `net` is empty for tensors that
        are not used, `file` for batch norms' counts, which start from 0 where an old file lacks
        them.

    Raises:
        TypeError: A parameter that the method does not have.
        ValueError: A parameter out of its range.
        LayerError: No such stage in the model.
        FileNotFoundError: There is no such file.
        FileFormatError: No such checkpoint, or one of another net; the names that do not fit are
            listed, in the file's words where the net has no such tensor. Or a tensor with values
            that are NaN or infinite, by its name in the file.
    """
    saved = read_state_dict(Path(path))
    chosen = cast(ABN, resolve_method("abn", params))
    is_resnext = any(_STAGE_OF_RESNEXT.match(name) for name in saved)
    if chosen.branch_norm is None:
        chosen = replace(chosen, branch_norm=not is_resnext)
    if not chosen.branch_norm and not is_resnext and any(n.startswith("bn_att.") for n in saved):
        raise ValueError(
            "branch_norm=False leaves out the norm 'bn_att' of the file, which its net calls; "
            "leave branch_norm out"
        )
    net = chosen.attach(model)
    headed = find_headed(net)
    return net.eval(), load_renamed(path, saved, headed, _match_names(saved, headed))


def _match_names(saved: Iterable[str], headed: Headed) -> dict[str, str]:
    """Return the net's name of each tensor of a file; an empty one for an unused norm."""
    settings = headed.method.parameters()
    names = {}
    for name in saved:
        module, _, leaf = name.partition(".")
        if module == "bn_att" and not settings["branch_norm"]:
            names[name] = ""
        elif module in _BRANCH:
            names[name] = f"head.{_BRANCH[module]}.{leaf}"
        elif module == "stage_att" or module.startswith("att_"):
            # The copy of the last stage is named after it: att_layer3 is a copy of layer3.
            original = _STAGE_OF_RESNEXT.sub("stage_3.stage_3_", name).removeprefix("att_")
            own = rename(original, headed.classifier)
            names[name] = f"head.stage.{own.removeprefix(settings['stage'] + '.')}"
        else:
            names[name] = f"classifier.{rename(name, headed.classifier)}"
    return names
