"""The table and the figure of a paper, for `evaluate`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from xcam.core import Method, Metric
    from xcam.models import Normalized
    from xcam.results import Results

__all__ = ["draw", "metrics_of", "shown"]

_PICTURES = 6


def metrics_of(name: str, nets: Mapping[str, Normalized], data: Dataset[Any]) -> dict[str, Metric]:
    """The metrics of a table; they depend on how many classes the models have."""
    from xcam._evaluate.work import count_classes
    from xcam.results import lcam

    if name != "lcam":
        raise ValueError(f"--table takes lcam, got {name!r}")
    first = data[0][0][None]
    return lcam.metrics(min(count_classes(net, first) for net in nets.values()))


def shown(results: Results) -> str:
    """The results in the layout of L-CAM's table, and what some of them lack."""
    from xcam.results import lcam

    table = lcam.table(results).to_string(float_format="{:.1f}".format, na_rep="")
    return "\n".join([table, *_fewer(results), *results.first_errors])


def _fewer(results: Results) -> Iterator[str]:
    """The methods that were scored on fewer images than others, beside which they stand."""
    counts = results.table(resamples=1).groupby(["model", "method"])["n"].min()
    for (model, method), count in counts.items():
        if count < counts.max():
            yield f"{method} ({model}): {count} images, others {counts.max()}"


def draw(
    path: Path,
    net: Normalized,
    data: Any,  # noqa: ANN401 - a data set of xcam.data
    methods: Iterable[Method],
    labeled: bool,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Draws pictures from all over the data, explained by each method, with AD and IC beneath."""
    import torch

    import xcam
    from xcam.results import figures

    count = min(_PICTURES, len(data))  # of a folder of classes, the first ones are of one class
    items = [data[number * len(data) // count] for number in range(count)]
    images = torch.stack([item[0] for item in items]).to(net.mean.device)
    target = [int(item[1]) for item in items] if labeled else None
    methods = list(methods)
    names = [method.spec.title for method in methods]
    explanations = {
        repr(method) if names.count(name) > 1 else name: xcam.explain(
            net, images, target, method, **settings
        )
        for name, method in zip(names, methods, strict=True)
    }
    figures.comparison(net, images, explanations, path, net.categories)
