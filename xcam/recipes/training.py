"""Training by a recipe, and the accuracy of the trained net."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import xcam
from xcam._fit.progress import make_folder
from xcam._roar.training import OWN_SETTINGS
from xcam.data.datasets import list_labels
from xcam.errors import warn
from xcam.recipes.reading import check, read
from xcam.registry import get_method
from xcam.runs.folder import RunFolder
from xcam.runs.processes import get_processes

if TYPE_CHECKING:
    import pandas as pd
    from torch.utils.data import Dataset

    from xcam.data import Splits
    from xcam.models import Normalized
    from xcam.results import RetrainingResults

__all__ = ["accuracy", "fit", "roar"]


def fit(
    recipe: str | Path | Mapping[str, Any],
    root: str | Path,
    out: str | Path | None = None,
    *,
    download: bool = False,
    **settings: Any,  # noqa: ANN401 - those of xcam.fit
) -> nn.Module:
    """Train the recipe's model on its data; the same call goes on with a run that was stopped.

    This is `xcam.fit(xcam.models.load(**model), data.train, …, out=out, **fit)` with the recipe's
    tables; the first weights are drawn by its seed, and the classes are named as the data name
    them. It raises what these functions and `read` raise, and what follows.

    Args:
        recipe: A name, a `.toml` file, or what `read` gave, with changes or without.
        root: Where the data are; see `xcam.data.load`.
        out: The folder of the run: checkpoints, `log.csv`, `test.csv`, and `recipe.json`, the
            tables of model and data. None writes nothing, and leaves the test images alone.
        download: Fetch data that are not at `root`, where they can be fetched.
        **settings: Of `xcam.fit`, such as `workers=4`, `device="cuda"` or `precision="bf16"`; they
            come before the recipe's.

    Raises:
        ValueError: The data have no training images, or another number of classes than the model;
            or `out` is of a recipe with another model or other data, each difference named.
    """
    chosen = _read_or_check(recipe)
    splits = _load_splits(chosen, root, download)
    arguments = {**chosen["fit"], **settings}
    predicted = _learns_predictions(chosen, arguments)
    net = _make_model(chosen, splits, arguments.get("seed", 0), predicted)
    train = _require_part(splits.train, "training", chosen, root)
    if not splits.classes:
        _compare_labels(chosen, arguments, train)
    folder = make_folder(out) if out and get_processes().is_main else None
    with folder.lock() if folder else nullcontext():
        if folder:
            _settle(folder, chosen)
        return xcam.fit(
            net,
            train,
            validation=splits.validation,
            test=splits.test if out else None,
            out=out,
            **arguments,
        )


def accuracy(
    recipe: str | Path | Mapping[str, Any],
    root: str | Path,
    weights: str | Path,
    *,
    download: bool = False,
    **settings: Any,  # noqa: ANN401 - those of xcam.accuracy
) -> pd.DataFrame:
    """Measure the accuracy by class of a trained net on the test images of a recipe.

    Args:
        recipe: A name, a `.toml` file, or what `read` gave.
        root: Where the data are.
        weights: A file of `xcam.save`, such as a run's `best.safetensors`.
        download: Fetch data that are not at `root`, where they can be fetched.
        **settings: Of `xcam.accuracy`, such as `device="cuda"`.

    Raises:
        ValueError: The data have no test images, or classes that the net does not have.
    """
    chosen = _read_or_check(recipe)
    net = xcam.load(weights)
    splits = _load_splits(chosen, root, download)
    test = _require_part(splits.test, "test", chosen, root)
    if settings.get("device") is None and torch.accelerator.is_available():
        net.to(torch.accelerator.current_accelerator())  # as `fit` does
    return xcam.accuracy(net, test, **settings)


def roar(
    recipe: str | Path | Mapping[str, Any],
    root: str | Path,
    model: Any,  # noqa: ANN401 - as xcam.roar takes it
    methods: Any = None,  # noqa: ANN401
    *,
    download: bool = False,
    fit: Mapping[str, Any] = MappingProxyType({}),
    **settings: Any,  # noqa: ANN401 - those of xcam.roar
) -> RetrainingResults:
    """Score maps by retraining the model of a recipe on its data; see `xcam.roar`.

    Args:
        recipe: A name, a `.toml` file, or what `read` gave, with changes or without.
        root: Where the data are; see `xcam.data.load`.
        model: The trained net that is explained, or a dict of several by name.
        methods: As in `xcam.roar`.
        download: Fetch data that are not at `root`, where they can be fetched.
        fit: Settings of the trainings that precede the recipe's.
        **settings: Of `xcam.roar`, such as `out`, `repeats` or `parallel`; the seed is the
            recipe's, if none is given.

    Raises:
        ValueError: The data have no training or no test images, or another number of classes than
            the model; and what `xcam.roar` and `read` raise.
    """
    chosen = _read_or_check(recipe)
    splits = _load_splits(chosen, root, download)
    given = {**chosen["fit"], **fit}
    predicted = _learns_predictions(chosen, given)
    if settings.get("seed") is None:
        settings["seed"] = given.get("seed", 0)

    def make_model() -> nn.Module:
        return _name_classes(xcam.models.load(**chosen["model"]), chosen, splits, predicted)

    return xcam.roar(
        make_model,
        _require_part(splits.train, "training", chosen, root),
        _require_part(splits.test, "test", chosen, root),
        model,
        methods,
        validation=splits.validation,
        fit={name: value for name, value in given.items() if name not in OWN_SETTINGS},
        **settings,
    )


def _read_or_check(recipe: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(recipe, Mapping):
        return read(recipe)
    check(recipe)
    return recipe


def _load_splits(recipe: Mapping[str, Any], root: str | Path, download: bool) -> Splits:
    return xcam.data.load(root=root, download=download, **recipe["data"])


def _compare_labels(
    recipe: Mapping[str, Any], arguments: Mapping[str, Any], train: Dataset[Any]
) -> None:
    """Warn if images without names of classes lack the last classes of a frozen classifier.

    It may have been trained on other data, and every label be a class all the same.
    """
    outputs, labels = recipe["model"].get("num_classes"), list_labels(train)
    if not outputs or not labels or not all(isinstance(label, int) for label in labels):
        return
    last = max(labels)  # type: ignore[type-var]  # integers
    if _has_frozen_classifier(arguments) and last < outputs - 1:
        warn(
            f"the classifier of {outputs} classes is frozen, and the training images show none "
            f"beyond class {last}; if it was trained on others than these, change model.weights to "
            f"one that was trained on these, and model.num_classes to theirs"
        )


def _has_frozen_classifier(arguments: Mapping[str, Any]) -> bool:
    method = arguments.get("method")
    kind = get_method(method) if isinstance(method, str) else method
    return hasattr(kind, "frozen") and arguments.get("frozen") is not False


def _learns_predictions(recipe: Mapping[str, Any], arguments: Mapping[str, Any]) -> bool:
    """Return whether a head is trained on what its frozen classifier predicts, not on labels.

    Raises:
        ValueError: Its classifier is as it is drawn, and so are its predictions, or the features
            that a head on a frozen classifier reads.
    """
    method = arguments.get("method")
    if method is None:
        return False
    kind = get_method(method) if isinstance(method, str) else method
    predicted: bool = arguments.get("labels", getattr(kind, "labels", None)) == "predicted"
    frozen = _has_frozen_classifier(arguments)
    if (predicted or frozen) and recipe["model"].get("weights") in (None, "none"):
        what = "what a trained classifier predicts" if predicted else "on a frozen classifier"
        raise ValueError(
            f"{kind.spec.name} learns {what}, and the weights of the "
            "recipe's are as they are drawn; give model.weights, such as a run's last.safetensors"
        )
    return predicted


def _make_model(
    recipe: Mapping[str, Any], splits: Splits, seed: int, predicted: bool = False
) -> Normalized:
    """Return the recipe's net with weights drawn by the seed, whatever has been drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        net = xcam.models.load(**recipe["model"])
    return _name_classes(net, recipe, splits, predicted)


def _name_classes(
    net: Normalized, recipe: Mapping[str, Any], splits: Splits, predicted: bool
) -> Normalized:
    """Return the net with the classes named as the data name them.

    Raises:
        ValueError: The data have another number of classes.
    """
    outputs, classes = recipe["model"].get("num_classes"), tuple(splits.classes)
    if not classes or outputs in (None, len(classes)):
        net.categories = net.categories or classes
    elif not (net.categories or (predicted and len(classes) < outputs)):  # else fit compares names
        raise ValueError(
            f"the recipe's model has {outputs} classes and the data have {len(classes)}: "
            f"change model.num_classes to {len(classes)}"
        )
    return net


def _settle(folder: RunFolder, recipe: Mapping[str, Any]) -> None:
    """Write what the manifest of a training leaves out, or compare it with what is there."""
    settings = {"model": recipe["model"], "data": recipe["data"]}
    folder.settle(settings, name="recipe.json")


def _require_part(
    part: Dataset[Any] | None, kind: str, recipe: Mapping[str, Any], root: str | Path
) -> Dataset[Any]:
    if part is None:
        name = recipe["data"]["name"]
        raise ValueError(f"the data {name!r} at {str(root)!r} have no {kind} images")
    return part
