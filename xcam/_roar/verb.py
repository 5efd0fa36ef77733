"""The verb `roar`."""

from __future__ import annotations

import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from xcam._evaluate.classes import renumber_maps
from xcam._evaluate.comparison import (
    Comparison,
    Maps,
    MapSource,
    Methods,
    Models,
    check_identity,
    resolve_methods,
)
from xcam._fit.settings import check_count
from xcam._roar.images import PlainImages
from xcam._roar.maps import MapMaker, draw_elements
from xcam._roar.plan import CONTROLS, Curve
from xcam._roar.protocol import Protocol, parse_shard
from xcam._roar.removal import Mode
from xcam._roar.training import check_fit
from xcam._roar.work import Work, locate_maps
from xcam.engine import random_states, unwrap
from xcam.errors import warn
from xcam.explanations.folder import StoredMaps
from xcam.results import RetrainingResults
from xcam.runs.folder import RunFolder
from xcam.runs.manifest import describe_model
from xcam.runs.processes import get_processes, working_alone

__all__ = ["roar"]

_CONTROLS = ("random", "sobel")
_BLUR = 20  # of the longer side is one σ of the Gaussian
_SPLITS = ("train", "validation", "test")


def roar(
    make_model: Callable[[], nn.Module],
    train: DataLoader[Any] | Dataset[Any],
    test: DataLoader[Any] | Dataset[Any],
    model: Models,
    methods: Methods = None,
    *,
    fit: Mapping[str, Any],
    maps: Maps = None,
    validation: DataLoader[Any] | Dataset[Any] | None = None,
    fractions: Sequence[float] | None = None,
    mode: Mode | Sequence[Mode] = "remove",
    unit: Literal["pixel", "element"] | None = None,
    fill: Literal["channel_mean", "zero", "linear"] | None = None,
    rank: Literal["signed", "abs", "square"] | None = None,
    target: Literal["predicted", "label"] | None = None,
    repeats: int | None = None,
    mask_eval: bool | None = None,
    controls: bool = True,
    blurred: bool = False,
    preset: Literal["paper", "whitebox"] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    parallel: int | None = None,
    shard: str | tuple[int, int] | None = None,
    device: str | torch.device | None = None,
    dry_run: bool = False,
    progress: bool = False,
) -> RetrainingResults:
    """Remove and retrain (ROAR), or keep and retrain (KAR): score maps by what new nets learn.

    A method's maps of all images are made once, on the images as they are. Then, for each fraction
    and repeat, a new net is trained on images without the highest pixels of their maps, and tested
    on such images: the lower its accuracy, the more of what tells the classes apart was there
    (Hooker et al., 2019, arXiv:1806.10758). `random` and `sobel` are retrained beside the methods,
    and both ends of every curve are: nothing removed, and everything. The same call resumes what
    was interrupted or killed; one with more methods, fractions, modes or repeats adds to it.

    Under `accelerate launch` or `torchrun` the processes share the trainings through `out`, and so
    do separate calls, also on several machines that share its disk: each claims trainings by
    locks, and those of one that dies are taken over by the others.

    Args:
        make_model: Returns a new net, with weights from torch's global generator, which is seeded;
            from images (B, C, H, W) in [0, 1] to logits (B, K).
        train: A map-style data set of `(image, label)`, with images in [0, 1]. Masks act on images
            before the `transform` of the data set; resizes, center crops and conversions at its
            beginning precede them. Or a `DataLoader` of one, of which batch size, workers and
            `drop_last` are used, and neither order nor collation.
        test: The images that new nets are tested on, likewise.
        model: The trained net that is explained, or a dict of several by name.
        methods: As in `xcam.evaluate`.
        fit: Settings of `xcam.fit` for each training, such as `{"epochs": 10}`.
        maps: Maps from elsewhere, as in `xcam.evaluate`; a folder may have a folder for each of
            `train`, `validation` and `test`.
        validation: Images by which the best epoch of each training is chosen.
        fractions: Of the elements that are removed, or kept; by default (.1, .3, .5, .7, .9).
        mode: `"remove"` the highest elements, or `"keep"` them and remove the others; or both.
        unit: `"pixel"` (the default), or `"element"` for each channel of a pixel by itself, by the
            map's own channels where it has them.
        fill: What replaces them: `"channel_mean"` of the training images (the default), `"zero"`,
            or `"linear"`, imputed from the neighbors (Rong et al., 2022, arXiv:2202.00449; without
            noise).
        rank: By the map's values as they are, `"signed"` (the default), or by their magnitude,
            `"abs"` or `"square"`, which rank alike.
        target: The class that is explained: `"predicted"` (the default), or the `"label"`.
        repeats: Trainings of each point, which differ in their seed; by default 5.
        mask_eval: Whether test and validation images are masked, too, as they are by default.
        controls: Whether to retrain the controls, too.
        blurred: Whether to retrain with each method's maps under a Gaussian of σ = max(H, W)/20,
            as a control: where blurred maps score better, it is the blur that is rewarded.
        preset: `"paper"`: elements, by their square. `"whitebox"`, the White Box project's: its
            nine fractions, elements, raw zeros, the label's maps, one repeat, and training images
            alone are masked; counts are rounded up, as there. Arguments override it.
        seed: Of the first repeat; each further one has the next.
        out: The folder of maps and trainings; None for one that lives as long as the results.
        parallel: Train so many nets at once as one stacked net, where that is possible; each ends
            with the weights that it would have had alone, up to what training makes of rounding.
        shard: `"i/n"`: do the i-th of n parts of the trainings alone, for arrays of jobs.
        device: Where to train; None takes an accelerator if there is one.
        dry_run: Only print how many trainings there are and the time that they take, measured on a
            few steps; nothing is written, and trainings that are there are returned, if any.
        progress: Print that first, and show progress bars on a terminal.

    Returns:
        The results so far.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: An argument out of its range, images that are not the same each time or not in
            [0, 1], a loader that chooses images, a method that fails on an image, or an `out` of
            another evaluation, each difference named.
        UnknownNameError: No such method.
        NotFittedError: A trainable method whose head a model lacks, or has untrained.
        FileFormatError: A damaged file in `out`, or among the maps.
        OSError: `out` cannot be written to.
    """
    protocol = Protocol.choose(
        preset,
        mode,
        seed,
        fractions=fractions,
        unit=unit,
        fill=fill,
        rank=rank,
        target=target,
        repeats=repeats,
        mask_eval=mask_eval,
    )
    settings, part = check_fit(fit, train), parse_shard(shard)
    check_count("parallel", 1 if parallel is None else parallel)
    if not callable(make_model) or isinstance(make_model, nn.Module):
        raise TypeError(
            "make_model must be a function that returns a new net each time, got "
            f"{type(make_model).__name__}; give lambda: Net()"
        )
    processes = get_processes()
    if out is None and (processes.count > 1 or part):
        raise ValueError("processes and shards need a folder to share; give out=…")
    whole_maps, split_maps = _set_splits_apart(maps)
    comparison = Comparison.of(
        model, methods, (), whole_maps, protocol.target, False, seed, None, "full"
    )
    if out is not None:
        check_identity(comparison.maps)
    folder = Path(tempfile.mkdtemp(prefix="xcam-")) if out is None else Path(out)
    try:
        with random_states(), working_alone():
            splits = _open_splits(train, validation, test)
            makers = _list_makers(comparison, split_maps, controls, protocol, folder)
            work = Work(
                protocol,
                splits,
                makers,
                _list_curves(makers, max(splits["train"].size[1:]) / _BLUR if blurred else 0.0),
                make_model,
                settings,
                processes.device if device is None and processes.count > 1 else device,
                parallel or 1,
                part,
            )
            work.check()
            place = RunFolder(folder, "ROAR evaluation", ("trainings",))
            if dry_run:
                work.settle(place, is_shared=False, writes=False)
                sys.stdout.write(work.estimate(folder) + "\n")
            else:
                work.run(place, progress, progress and processes.is_main)
        results = RetrainingResults(folder, must_exist=not dry_run)
    except BaseException:
        if out is None:
            shutil.rmtree(folder)
        raise
    if out is None:
        weakref.finalize(results, shutil.rmtree, folder, ignore_errors=True)
    for note in work.notes:
        warn(note)
    return results


def _open_splits(train: Any, validation: Any, test: Any) -> dict[str, PlainImages]:  # noqa: ANN401
    """Open the images of each split that is given.

    Raises:
        TypeError, ValueError: See `PlainImages.open`; or images of different sizes.
    """
    given = zip(_SPLITS, (train, validation, test), strict=True)
    found = {name: PlainImages.open(data, name) for name, data in given if data is not None}
    sizes = {name: images.size for name, images in found.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{size} in {name}" for name, size in sizes.items())
        raise ValueError(
            f"images must have one size (C, H, W) before the transform, got {listed}; begin the "
            "transforms with the same resize"
        )
    return found


def _set_splits_apart(maps: Maps) -> tuple[Maps, dict[str, dict[str, MapSource]]]:
    """Return the sources of maps by label, and those that are folders with a folder a split.

    In the first, the maps of the training images stand for each of the latter.
    """
    if isinstance(maps, str | Path):
        maps = {Path(maps).resolve().name: maps}
    if not isinstance(maps, Mapping):
        return maps, {}
    whole: dict[str, str | Path | MapSource] = {}
    apart: dict[str, dict[str, MapSource]] = {}
    for label, source in maps.items():
        whole[str(label)] = source
        if isinstance(source, str | Path) and (Path(source) / "train").is_dir():
            folders = (Path(source) / name for name in _SPLITS)
            apart[str(label)] = {path.name: StoredMaps(path) for path in folders if path.is_dir()}
            whole[str(label)] = apart[str(label)]["train"]
    return whole, apart


def _list_makers(
    comparison: Comparison,
    split_maps: Mapping[str, Mapping[str, MapSource]],
    controls: bool,
    protocol: Protocol,
    folder: Path,
) -> dict[tuple[str | None, str], MapMaker]:
    """List what makes maps, by model and label; controls belong to no model."""
    keeps_channels = protocol.removal.unit == "element"
    identities = {name: describe_model(unwrap(net)) for name, net in comparison.models.items()}
    found: dict[tuple[str | None, str], MapMaker] = {}

    def add(model: str | None, label: str, net: nn.Module, source: Any) -> None:  # noqa: ANN401
        path = locate_maps(folder, (model or CONTROLS, label))
        target, identity = protocol.target, None if model is None else identities[model]
        found[model, label] = MapMaker(label, net, source, target, keeps_channels, path, identity)

    for name, net in comparison.models.items():
        for label, method in comparison.methods[name].items():
            if not (controls and label in _CONTROLS and method.spec.name == label):
                add(name, label, net, method)
        for label, source in comparison.maps.items():
            parts = split_maps.get(label)
            if parts is None:
                add(name, label, net, renumber_maps(source, name, net))
            else:
                renumbered = {k: renumber_maps(one, name, net) for k, one in parts.items()}
                add(name, label, net, renumbered)
    if controls:
        first = next(iter(comparison.models.values()))
        for label, method in resolve_methods(first, _CONTROLS, protocol.removal.seed).items():
            is_drawn = keeps_channels and label == "random"
            add(None, label, first, draw_elements if is_drawn else method)
    return found


def _list_curves(makers: Mapping[tuple[str | None, str], MapMaker], sigma: float) -> list[Curve]:
    """List the curves, and with a σ above 0 one by each method's blurred maps, too.

    Raises:
        ValueError: Methods or maps are called as a control is.
    """
    curves = [Curve(model, label, label, model is None) for model, label in makers]
    if sigma:
        methods = [curve for curve in curves if not curve.control]
        curves += [
            Curve(curve.model, f"{curve.method}, blurred", curve.maps, True, sigma)
            for curve in methods
        ]
    owners: dict[str, Curve] = {}
    for curve in curves:
        other = owners.setdefault(curve.method, curve)
        if other.control != curve.control:
            raise ValueError(
                f"a method or maps are called {curve.method!r}, and so is a control; name them "
                "otherwise, {name: …}, or leave the control out"
            )
    return curves
