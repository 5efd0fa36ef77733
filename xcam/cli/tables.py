"""The table and the figure of a paper, for `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcam.cli.nets import class_count

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from xcam.core import Method, Metric
    from xcam.models import Normalized
    from xcam.results import Results

__all__ = ["draw", "metrics_of", "shown"]

_PICTURES = 6


def metrics_of(name: str, nets: Mapping[str, Normalized], data: Dataset[Any]) -> dict[str, Metric]:
    """The metrics of a table; they depend on how many classes the models have."""
    from xcam.results import lcam

    if name != "lcam":
        raise ValueError(f"--table takes lcam, got {name!r}")
    return lcam.metrics(min(class_count(net, data[0][0]) for net in nets.values()))


def shown(results: Results) -> str:
    """The results in the layout of L-CAM's table."""
    from xcam.results import lcam

    return str(lcam.table(results).to_string(float_format="{:.1f}".format, na_rep=""))


def draw(
    path: Path,
    net: Normalized,
    data: Any,  # noqa: ANN401 - a data set of xcam.data
    methods: Sequence[Method],
    labelled: bool,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Draws the first pictures, explained by each method, with AD and IC beneath."""
    import torch

    import xcam
    from xcam import figures

    items = [data[index] for index in range(min(_PICTURES, len(data)))]
    images = torch.stack([item[0] for item in items]).to(net.mean.device)
    target = [int(item[1]) for item in items] if labelled else None
    names = [method.spec.title for method in methods]
    explanations = {
        repr(method) if names.count(name) > 1 else name: xcam.explain(
            net, images, target, method, **settings
        )
        for name, method in zip(names, methods, strict=True)
    }
    figures.comparison(net, images, explanations, path, net.categories)
