"""Names of tensors in the nets that the code of LFI-CAM and ABN trains, and in xcam's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from xcam.checkpoints.published.finite import check_finite
from xcam.core import Headed
from xcam.errors import FileFormatError
from xcam.models.cifar.densenet import CifarDenseNet
from xcam.models.cifar.resnet import CifarResNet
from xcam.models.cifar.resnext import CifarResNeXt
from xcam.models.cifar.wide_resnet import CifarWideResNet
from xcam.models.state_dicts import describe_mismatch

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["load_renamed", "rename"]

_COUNTER = "num_batches_tracked"

# Patterns of the file's names and what stands for them in xcam's nets, applied in this order. Other
# nets keep their names: the file's ResNets for ImageNet have torchvision's.
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
_WIDE_RESNET = {
    r"^conv1\.": "stem.",
    r"^bn1\.": "norm.0.",
    r"^block(\d)\.layer\.": r"stage\1.",
    r"\.bn1\.": ".activation.0.",
    r"\.conv1\.": ".branch.0.",
    r"\.bn2\.": ".branch.1.",
    r"\.conv2\.": ".branch.4.",
    r"\.convShortcut\.": ".projection.",
}


def rename(name: str, classifier: nn.Module) -> str:
    """Return the name that a tensor of a published net has in xcam's net of the same kind."""
    for pattern, replacement in _find_patterns(classifier).items():
        name = re.sub(pattern, replacement, name)
    return name


def _find_patterns(classifier: nn.Module) -> Mapping[str, str]:
    if isinstance(classifier, CifarDenseNet):
        layers = len(classifier.stage3)  # the transition's norm comes behind as many
        places = {"norm": layers, "conv": layers + 2}
        return {pattern: own.format(**places) for pattern, own in _DENSENET.items()}
    known = {CifarResNet: _RESNET, CifarResNeXt: _RESNEXT, CifarWideResNet: _WIDE_RESNET}
    return known.get(type(classifier), {})


def load_renamed(
    path: str | Path, saved: Mapping[str, Tensor], headed: Headed, names: Mapping[str, str]
) -> pd.DataFrame:
    """Load the tensors of a published file into a net, and mark its head as fitted.

    Args:
        path: The file, for messages.
        saved: Its tensors.
        headed: The net.
        names: The net's name of each tensor of the file; an empty one for what the net does not
            use.

    Returns:
        A table with a row for each tensor of the net, and each of the file that it does not use:
        `file`, its name in the file, `net`, its name in the net, and `shape`. Counts of batches
        that files of old versions of torch lack start from 0.

    Raises:
        FileFormatError: Names or shapes that do not fit, in the file's words where the net has no
            such tensor; or values that are NaN or infinite.
    """
    wanted = headed.state_dict()
    sources: dict[str, str] = {}
    for name, own in names.items():
        if own:
            sources[own if own in wanted and own not in sources else name] = name
    found = {own: saved[name] for own, name in sources.items()}
    uncounted = {own for own in wanted.keys() - found.keys() if own.endswith(_COUNTER)}
    found |= {own: wanted[own].new_zeros(()) for own in uncounted}
    fault = describe_mismatch(wanted, found)
    if fault:
        title, kind = headed.method.spec.title, type(headed.classifier).__name__
        raise FileFormatError(
            f"the weights in {str(path)!r} are no {title} of this {kind}: {fault}"
        )
    check_finite(path, {name: found[own].to(wanted[own].dtype) for own, name in sources.items()})
    headed.load_state_dict(found)
    headed.fitted = True
    return _make_report(saved, sources, wanted)


def _make_report(
    saved: Mapping[str, Tensor], sources: Mapping[str, str], wanted: Mapping[str, Tensor]
) -> pd.DataFrame:
    import pandas as pd

    rows = [(sources.get(own, ""), own, tuple(tensor.shape)) for own, tensor in wanted.items()]
    unused = saved.keys() - set(sources.values())
    rows += [(name, "", tuple(saved[name].shape)) for name in saved if name in unused]
    return pd.DataFrame(rows, columns=["file", "net", "shape"])
