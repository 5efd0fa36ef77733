"""A small data set to evaluate on, methods and metrics that fail, and helpers to read rows."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Dataset

import xcam
from xcam.core import Method, MethodSpec, Metric, MetricSpec
from xcam.engine import untouched
from xcam.engine.forward import call, note
from xcam.models.toy import GapNet

NET = GapNet()
CONTROLS = ["center_gaussian", "random", "sobel"]
TIMES = ["seconds", "explain_seconds", "seconds_spent", "explain_seconds_spent"]


class Pictures(Dataset):
    """Seeded pictures with labels and masks; `loaded` lists the indices that were read."""

    def __init__(self, count=11, size=16, truth=False, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.rand(count, 3, size, size, generator=generator)
        self.labels = torch.randint(0, 5, (count,), generator=generator).tolist()
        self.masks = torch.zeros(count, size, size, dtype=torch.bool)
        self.masks[:, : size // 2, : size // 2] = True
        self.truth, self.loaded = truth, []
        self.ids = [f"class{label}/{index}.png" for index, label in enumerate(self.labels)]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.loaded.append(index)
        item = (self.images[index], self.labels[index])
        return (*item, self.masks[index]) if self.truth else item


def parts(folder):
    """Return the names of the parts in a folder."""
    return sorted(path.name for path in (folder / "rows").iterdir())


def rows(folder):
    """Return all rows of an evaluation in the order of the parts, without their times."""
    tables = [pq.read_table(path) for path in sorted((folder / "rows").glob("batch-*.parquet"))]
    return [row for table in tables for row in table.drop(TIMES).to_pylist()]


def assert_same_rows(found, expected):
    """Assert that rows are equal, numbers to 1e-6."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            if name == "values" and value is not None:
                np.testing.assert_allclose(value, other[name], rtol=1e-6, atol=1e-6)
            else:
                assert value == other[name], name


def evaluate(data, methods="gradcam", metrics="sparseness", model=NET, **arguments):
    return xcam.evaluate(model, data, methods, metrics, **arguments)


def loader(data=None, batch_size=4, **arguments):
    return DataLoader(data or Pictures(), batch_size=batch_size, **arguments)


def plain(rows, *columns):
    return [tuple(row[column] for column in columns) for row in rows]


@dataclass(frozen=True)
class Brightness(Metric):
    """The brightness of each image; fails above a threshold, in a chosen way."""

    fails: float = 2.0
    kind: str = "error"

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="brightness", title="", paper="", formula="", higher_is_better=True, bounds=(0, 1)
    )

    def score(self, model, images, explanation, truth=None):
        with untouched(model), torch.no_grad():
            call(model, images)
        note("the metric has something to say")
        note("image 0: of an image")
        for image in images:
            if image.max() > self.fails:
                if self.kind == "nan":
                    return torch.full((len(images),), torch.nan)
                raise {"error": ValueError, "stop": KeyboardInterrupt}[self.kind]("too\nbright")
        return images.flatten(1).mean(1)

    def finish(self, mean):
        return mean


@dataclass(frozen=True)
class Picky(Method):
    """Fails on one picture."""

    seen: ClassVar[list] = []
    spec: ClassVar[MethodSpec] = MethodSpec(
        name="picky", title="", paper="", family="control", cost="none"
    )

    def maps(self, model, images, target):
        self.seen.append(len(images))
        if images.max() > 2:
            raise ValueError("not this one")
        target.bind(call(model, images))
        return images.mean(1)
