"""Made-up rows of an evaluation, and the metrics that they are of."""

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import torch

from xcam.core import Metric, MetricSpec
from xcam.results.parts import encode_part
from xcam.runs.manifest import encode_manifest

COUNT = 40
METHODS = ["gradcam", "my_cam", "random"]


def spec(name, higher):
    return MetricSpec(name, name, "", "", higher, (0, 1))


@dataclass(frozen=True)
class Plain(Metric):
    """A number an image."""

    spec: ClassVar[MetricSpec] = spec("plain", True)

    def score(self, model, images, explanation, truth=None):
        raise NotImplementedError

    def finish(self, mean):
        return mean


@dataclass(frozen=True)
class Area(Plain):
    """The area under a curve of five points."""

    spec: ClassVar[MetricSpec] = spec("area", False)

    def finish(self, mean):
        return mean.mean(-1)

    def curve(self, mean):
        return torch.linspace(0, 1, 5), mean


@dataclass(frozen=True)
class Best(Plain):
    """The best of 2 × 3 thresholds for the whole data set."""

    spec: ClassVar[MetricSpec] = spec("best", True)

    def finish(self, mean):
        return mean.flatten(-2).amax(-1)


@dataclass(frozen=True)
class Neutral(Plain):
    spec: ClassVar[MetricSpec] = spec("neutral", None)


METRICS = {"plain": Plain(), "area": Area(), "best": Best(), "neutral": Neutral()}
SHAPES = {"plain": (), "area": (5,), "best": (2, 3), "neutral": ()}


def records(count=COUNT, models=("net",), methods=METHODS, rows_an_image=1, seed=0):
    """Rows whose values rise with the method's place in the list."""
    generator = np.random.default_rng(seed)
    return [
        {
            "index": index,
            "image": f"image-{index // rows_an_image}",
            "model": model,
            "target": 3,
            "label": None,
            "method": method,
            "metric": metric,
            "values": generator.random(int(np.prod(shape))) + 0.3 * methods.index(method),
            "shape": list(shape),
            "seconds": 0.5,
            "passes": 2.0,
            "explain_seconds": 0.25,
            "explain_passes": 1.0,
            "error": None,
        }
        for index in range(count)
        for model, method, (metric, shape) in itertools.product(models, methods, SHAPES.items())
    ]


def write(folder, found, size=8):
    """A part for every `size` images, and a manifest."""
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(found)
    for number, part in found_by(table, size):
        path = folder / "rows" / f"batch-{number:08d}.parquet"
        path.write_bytes(encode_part(part.to_dict("records")))
    names = {name: {"name": name} for name in table["method"].unique()}
    manifest = {"methods": names, "metrics": {}, "images": {"count": table["index"].nunique()}}
    (folder / "manifest.json").write_bytes(encode_manifest(manifest))
    return folder


def found_by(table, size):
    table = table.astype(object).where(table.notna(), None)
    return table.groupby(table["index"].astype(int) // size)


def values_of(found, method, metric, model="net"):
    """(N, S) of the rows that worked, in order."""
    wanted = (model, method, metric)
    chosen = [row for row in found if (row["model"], row["method"], row["metric"]) == wanted]
    values = np.stack([row["values"] for row in chosen if row["error"] is None])
    return values.astype(np.float32).astype(np.float64)


def fail(row, why="ValueError: no map"):
    row.update(values=None, shape=None, seconds=None, passes=None, error=why)
