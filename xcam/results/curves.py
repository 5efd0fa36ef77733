"""The curves behind metrics, with an interval at each point."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import torch
from torch import Tensor

from xcam.core import Metric
from xcam.results.bootstrap import Sample, resample
from xcam.results.rows import Group

__all__ = ["tabulate_curves"]


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


def _read_ordinates(curve: tuple[Tensor, Tensor] | None) -> Tensor:
    """Return the (…, P) ordinates of a curve, which must be there."""
    if curve is None:
        raise ValueError("the metric's curve() returns None for some means only")
    return curve[1]
