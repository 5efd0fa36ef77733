"""Cue localization: are the maps of two classes different where the classes are?"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from xcam._explain.verb import explain
from xcam.core import Method
from xcam.engine import untouched
from xcam.engine.clean import clean_logits
from xcam.forks import importing
from xcam.metrics.localization.pxap import PxAP
from xcam.metrics.localization.score_maps import make_score_maps
from xcam.sentences import pluralize

__all__ = ["Pair", "cue_localization"]


class Pair(Protocol):
    """A data set of `(image, label, mask)` with images of two classes, as `xcam.data.cub_cues`.

    Masks are 1 where the classes differ, and 0 elsewhere.
    """

    @property
    def classes(self) -> tuple[int, int]:
        """Return the numbers of the two classes."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Return what they differ in."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        """Return an image, its label and its mask."""


def cue_localization(
    model: nn.Module,
    pairs: Iterable[Pair],
    method: str | Method | None = None,
    metric: PxAP | None = None,
    *,
    cumulative: bool = False,
    batch_size: int = 32,
    progress: bool = False,
    **params: Any,  # noqa: ANN401
) -> pd.DataFrame:
    """Measure whether maps find where two classes differ, for each pair of classes.

    Of all images of either class, |map of the first class − map of the second| is normalized as
    `metric` says, and its pixel-wise average precision for the pair's mask is computed over the
    pooled pixels of the pair (Kim et al., 2021, CALM, arXiv:2106.07861).

    Args:
        model: The classifier, whose classes are those of the pairs.
        pairs: Such as `xcam.data.cub_cues` returns.
        method: A class-specific method; see `xcam.explain`.
        metric: How maps are normalized and thresholded; None for `PxAP()`. CALM's authors take
            `PxAP(scaling="clip", thresholds="log")` for maps that are probabilities.
        cumulative: Whether to pool the pixels of a pair with those of all pairs before it, as the
            published code does.
        batch_size: How many images are explained at a time.
        progress: Whether to show a progress bar.
        **params: Hyper-parameters of the method.

    Returns:
        A line a pair: `first`, `second`, the classes; `parts`, their number; `differ`, their names;
        `images`; `pxap`, in [0, 100], NaN where no pixel differs. The published figures are means
        over the pairs with one, two and three parts, and over all of them.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: The method is not class-specific, the model lacks a class of a pair, masks are
            not of the images' size, or a batch size below 1.
    """
    chosen = PxAP() if metric is None else metric
    _check_arguments(pairs, method, chosen, batch_size)
    total: Tensor | float = 0.0
    rows = []
    with importing():
        from tqdm.auto import tqdm
    for pair in tqdm(pairs, "pairs", leave=False) if progress else pairs:
        if not hasattr(pair, "classes"):
            raise TypeError(f"a pair must be such as xcam.data.cub_cues returns, got {pair!r}")
        counts = [
            _count(model, images, masks, pair.classes, method, chosen, params)
            for images, _, masks in DataLoader(pair, batch_size=batch_size)  # type: ignore[arg-type]
        ]
        total = sum(counts, start=total if cumulative else 0.0)
        value = float(chosen.finish(total)) if isinstance(total, Tensor) else math.nan
        rows.append((*pair.classes, len(pair.parts), " ".join(pair.parts), len(pair), value))
    return pd.DataFrame(rows, columns=["first", "second", "parts", "differ", "images", "pxap"])


def _check_arguments(pairs: object, method: object, metric: object, batch_size: object) -> None:
    if isinstance(pairs, str) or hasattr(pairs, "classes") or not isinstance(pairs, Iterable):
        raise TypeError(
            f"pairs must be a list of pairs, such as xcam.data.cub_cues returns, got {pairs!r}"
        )
    if not (method is None or isinstance(method, str | Method)):
        raise TypeError(f"method must be one method, such as 'gradcam', got {method!r}")
    if not isinstance(metric, PxAP):
        raise TypeError(
            f"metric must be a PxAP, such as xcam.metrics.PxAP(scaling='clip'), got {metric!r}"
        )
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a positive int, got {batch_size!r}")


def _count(
    model: nn.Module,
    images: Tensor,
    masks: Tensor,
    classes: tuple[int, int],
    method: str | Method | None,
    metric: PxAP,
    params: dict[str, Any],
) -> Tensor:
    """Return the pixels of a batch, (2, bins)."""
    if masks.shape != (len(images), *images.shape[2:]):
        raise ValueError(
            f"masks of a pair must have the images' size {tuple(images.shape[2:])}, got "
            f"{tuple(masks.shape[1:])}"
        )
    device = next((p.device for p in model.parameters()), images.device)
    shown = images.to(device)
    try:
        found = explain(model, shown, classes[0], method, contrast=classes[1], **params)
    except ValueError as error:
        with untouched(model):
            count = clean_logits(model, shown[:1]).shape[1]
        if max(classes) < count:
            raise
        raise ValueError(
            f"a pair has class {max(classes)}, and the model has {pluralize(count, 'class')}; take "
            "a model of the data set's classes"
        ) from error
    maps = make_score_maps(found, shown, metric.resize, metric.scaling, magnitude=True)
    objects = masks.to(device) == 1
    return metric.count(maps, objects, torch.zeros_like(objects)).double().sum(0).cpu()
