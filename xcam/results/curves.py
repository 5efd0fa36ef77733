"""The curves behind metrics, with an interval at each point."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import torch
from torch import Tensor

from xcam.core import Metric
from xcam.results.bootstrap import Sample, resample
from xcam.results.rows import Group

__all__ = ["tabulate_curves", "tabulate_image_curves"]


def tabulate_curves(
    label: str,
    metric: Metric,
    samples: Iterable[tuple[Group, Sample]],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return a line for each point of each group's curve; see `Results.curves`.

    Raises:
        ValueError: The metric has no curve.
    """
    read = metric.curve
    frames = []
    for (model, method), sample in samples:
        curve = read(sample.mean())
        if curve is None:
            raise ValueError(f"{label!r} has no curve")
        (draws,) = resample([sample], lambda mean: _read_ordinates(read(mean)), resamples, seed)
        low, high = draws.double().nanquantile(torch.tensor([0.025, 0.975]).double(), 0)
        points = {"x": curve[0], "y": curve[1], "low": low, "high": high}
        columns = {name: values.double().numpy() for name, values in points.items()}
        frames.append(pd.DataFrame({"model": model, "method": method, **columns}))
        del sample  # before the next is read
    return pd.concat(frames, ignore_index=True)


def tabulate_image_curves(
    metric: Metric, samples: Iterable[tuple[Group, Sample]], count: int
) -> pd.DataFrame:
    """Return the curves of single images, spread over all, of a metric that has a curve.

    Returns:
        A line for each point: `model`, `method`, `image` (its number), `x`, `y`.
    """
    frames = []
    for (model, method), sample in samples:
        known = sample.sizes.nonzero()[:, 0]  # the others failed
        step = max(1, -(-len(known) // count))
        for image in known[::step].tolist():
            curve = metric.curve(sample.sums[image] / sample.sizes[image])
            assert curve is not None  # as that of the mean is not
            x, y = (values.double().numpy() for values in curve)
            columns = {"model": model, "method": method, "image": image, "x": x, "y": y}
            frames.append(pd.DataFrame(columns))
        del sample  # before the next is read
    return pd.concat(frames, ignore_index=True)


def _read_ordinates(curve: tuple[Tensor, Tensor] | None) -> Tensor:
    """Return the (…, P) ordinates of a curve, which must be there."""
    if curve is None:
        raise ValueError("the metric's curve() returns None for some means only")
    return curve[1]
