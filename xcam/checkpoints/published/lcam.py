"""Heads that the published code of L-CAM has trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from xcam._explain.prepared import resolve_method
from xcam.checkpoints.published.finite import check_finite
from xcam.core import Headed, TrainableMethod, find_headed
from xcam.errors import FileFormatError, warn
from xcam.models.state_dicts import describe_mismatch, read_state_dict

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["import_lcam"]

_METHODS = ("lcam_fm", "lcam_img")
# Their names in the file, and in the net.
_NAMES = {"attnM.op.weight": "head.weight", "attnM.op.bias": "head.bias"}


def import_lcam(
    path: str | Path,
    model: nn.Module,
    method: Literal["lcam_fm", "lcam_img"],
    **params: Any,  # noqa: ANN401
) -> tuple[nn.Module, pd.DataFrame]:
    """Read the attention mechanism from a checkpoint (.pth.tar) of the published L-CAM code.

    The checkpoint holds the classifier, too, under names of its own: it is not loaded, but each of
    its tensors is looked for in the model. Files are read as weights alone, no code in them runs.
    The published code and its weights are for academic, non-commercial use alone.

    Args:
        path: The file.
        model: The classifier that the mechanism was trained for, such as
            `xcam.models.load("torchvision:vgg16", weights="IMAGENET1K_V1")`; left as it was.
        method: By which it was trained.
        **params: Hyper-parameters of the method, such as `layer="features.30"` for maps of 7x7.

    Returns:
        The net, ready to explain; and a table with a row for each key of the file and each tensor
        of the classifier: `file`, the key, `net`, the name of the tensor that is equal now, and
        `shape`. One of the names is empty where the other side has no such tensor.

    Warns:
        warn: The file holds a classifier, and it is not the model.

    Raises:
        TypeError: A parameter that the method does not have.
        ValueError: No such method, or a parameter out of its range.
        FileNotFoundError: There is no such file.
        FileFormatError: No such checkpoint, or a mechanism of another shape or with values that are
            NaN or infinite; keys are named.
    """
    if method not in _METHODS:
        raise ValueError(f"method must be one of {', '.join(_METHODS)}, got {method!r}")
    saved = read_state_dict(Path(path))
    net = cast(TrainableMethod, resolve_method(method, params)).attach(model)
    headed = find_headed(net)
    wanted = {name: headed.get_parameter(own) for name, own in _NAMES.items()}
    found = {name: saved[name] for name in _NAMES if name in saved}
    fault = describe_mismatch(wanted, found)
    if fault:
        raise FileFormatError(
            f"the weights in {str(path)!r} do not fit the L-CAM head of this classifier: {fault}"
        )
    found = {name: found[name].to(parameter.dtype) for name, parameter in wanted.items()}
    check_finite(path, found)
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(found[name])
    headed.fitted = True
    report = _make_report(saved, headed)
    _warn_of_another_classifier(report, path)
    return net.eval(), report


def _make_report(saved: Mapping[str, Tensor], headed: Headed) -> pd.DataFrame:
    """Match the tensors of the file and the net by their values, each once."""
    import pandas as pd

    # Counters of batches seen are the same in many nets, and tell nothing.
    free = {n: t.cpu() for n, t in headed.state_dict().items() if t.is_floating_point()}
    rows = []
    for name, tensor in saved.items():
        same = _NAMES.get(name) or next((n for n, t in free.items() if _are_equal(t, tensor)), "")
        free.pop(same, None)
        rows.append((name, same, tuple(tensor.shape)))
    rows += [("", name, tuple(tensor.shape)) for name, tensor in free.items()]
    return pd.DataFrame(rows, columns=["file", "net", "shape"])


def _are_equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _warn_of_another_classifier(report: pd.DataFrame, path: str | Path) -> None:
    lacking = report[report["file"] == ""]
    if len(lacking) and len(report) > len(lacking) + len(_NAMES):
        total = int(report["net"].str.startswith("classifier.").sum())
        warn(
            f"{str(path)!r} was trained for another classifier: {len(lacking)} of {total} tensors "
            f"of the model are not in it, such as {lacking['net'].iloc[0]!r}",
        )
