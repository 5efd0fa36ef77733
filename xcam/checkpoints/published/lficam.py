"""Nets that the published code of LFI-CAM has trained."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from xcam._explain.prepared import resolve_method
from xcam.checkpoints.published.finite import check_finite
from xcam.core import Headed, find_headed
from xcam.errors import FileFormatError
from xcam.methods.trainable.lficam import LFICAM, FeatureImportance
from xcam.models.cifar.densenet import CifarDenseNet
from xcam.models.cifar.resnet import CifarResNet
from xcam.models.cifar.resnext import CifarResNeXt
from xcam.models.state_dicts import describe_mismatch, read_state_dict

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["import_lficam"]

_COUNTER = "num_batches_tracked"

# Patterns of the file's names and what stands for them in xcam's nets, applied in this order. Of
# all other nets names are taken as they are: the file's ResNets for ImageNet have torchvision's.
_RESNET = {
    r"^conv1\.": "stem.0.",
    r"^bn1\.": "stem.1.",
    r"^layer(\d)\.": r"stage\1.",
    r"\.conv1\.": ".branch.0.",
    r"\.bn1\.": ".branch.1.",
    r"\.conv2\.": ".branch.3.",
    r"\.bn2\.": ".branch.4.",
    r"\.conv3\.": ".branch.6.",
    r"\.bn3\.": ".branch.7.",
    r"\.downsample\.": ".shortcut.",
    r"^fc\.0\.": "fc.",
}
_RESNEXT = {
    r"^conv_1_3x3\.": "stem.0.",
    r"^bn_1\.": "stem.1.",
    r"^stage_(\d)\.stage_\1_bottleneck_": r"stage\1.",
    r"\.conv_reduce\.": ".branch.0.",
    r"\.bn_reduce\.": ".branch.1.",
    r"\.conv_conv\.": ".branch.3.",
    r"\.bn\.": ".branch.4.",
    r"\.conv_expand\.": ".branch.6.",
    r"\.bn_expand\.": ".branch.7.",
    r"\.shortcut_conv\.": ".0.",
    r"\.shortcut_bn\.": ".1.",
    r"^classifier\.": "fc.",
}
_DENSENET = {
    r"^conv1\.": "stem.",
    r"^bn\.": "norm.0.",
    r"^trans(\d)\.bn1\.": r"stage\1.{norm}.",
    r"^trans(\d)\.conv1\.": r"stage\1.{conv}.",
    r"^dense(\d)\.": r"stage\1.",
    r"\.bn1\.": ".branch.0.",
    r"\.conv1\.": ".branch.2.",
    r"\.bn2\.": ".branch.3.",
    r"\.conv2\.": ".branch.5.",
}


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
    it runs.

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
    names = _match_names(saved, headed)
    wanted = headed.state_dict()
    found = {own: saved[name] for own, name in names.items()}
    uncounted = {own for own in wanted.keys() - found.keys() if own.endswith(_COUNTER)}
    found |= {own: wanted[own].new_zeros(()) for own in uncounted}
    fault = describe_mismatch(wanted, found)
    if fault:
        kind = type(headed.classifier).__name__
        raise FileFormatError(
            f"the weights in {str(path)!r} are no LFI-CAM of this {kind}: {fault}"
        )
    check_finite(path, {name: found[own].to(wanted[own].dtype) for own, name in names.items()})
    headed.load_state_dict(found)
    headed.fitted = True
    return net.eval(), _make_report(names, wanted)


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
    """Return the net's name of each tensor of a file, and the file's; or the file's for both."""
    fin = cast(FeatureImportance, headed.head).fin
    weighted = [i for i, module in enumerate(fin) if [*module.parameters()]]
    patterns = _find_patterns(headed.classifier)
    known = headed.state_dict().keys()
    names: dict[str, str] = {}
    for name in saved:
        place, leaf = _parse_fin_name(name)
        if place is not None:
            own = f"head.fin.{weighted[place]}.{leaf}"
        else:
            own = f"classifier.{_replace(name, patterns)}"
        names[own if own in known and own not in names else name] = name
    return names


def _replace(name: str, patterns: Mapping[str, str]) -> str:
    for pattern, replacement in patterns.items():
        name = re.sub(pattern, replacement, name)
    return name


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


def _find_patterns(classifier: nn.Module) -> Mapping[str, str]:
    if isinstance(classifier, CifarResNet):
        return _RESNET
    if isinstance(classifier, CifarResNeXt):
        return _RESNEXT
    if isinstance(classifier, CifarDenseNet):
        layers = len(classifier.stage3)  # the transition's norm comes behind as many
        places = {"norm": layers, "conv": layers + 2}
        return {pattern: own.format(**places) for pattern, own in _DENSENET.items()}
    return {}


def _make_report(names: Mapping[str, str], wanted: Mapping[str, Tensor]) -> pd.DataFrame:
    import pandas as pd

    rows = [(names.get(own, ""), own, tuple(tensor.shape)) for own, tensor in wanted.items()]
    return pd.DataFrame(rows, columns=["file", "net", "shape"])
