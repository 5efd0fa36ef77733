"""A part of the rows of an evaluation: a Parquet file with a checksum."""

from __future__ import annotations

import io
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from xcam.errors import FileFormatError

__all__ = [
    "ADDED",
    "SCHEMA",
    "Part",
    "Row",
    "check_part",
    "describe_damaged_part",
    "encode_part",
    "name_images",
    "read_part",
]

SCHEMA = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("target", pa.int64()),
        pa.field("label", pa.int64()),
        pa.field("method", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("values", pa.list_(pa.float32())),
        pa.field("shape", pa.list_(pa.int32())),
        pa.field("seconds", pa.float64()),
        pa.field("passes", pa.float64()),
        pa.field("explain_seconds", pa.float64()),
        pa.field("explain_passes", pa.float64()),
        pa.field("passes_spent", pa.float64()),
        pa.field("explain_passes_spent", pa.float64()),
        pa.field("seconds_spent", pa.float64()),
        pa.field("explain_seconds_spent", pa.float64()),
        pa.field("flat", pa.bool_()),
        pa.field("error", pa.string()),
    ]
)
ADDED = ("seconds_spent", "explain_seconds_spent")
"""Columns that parts of the first versions lack; they are null there."""

T = TypeVar("T")

_UNSIGNED = b"crc32=--------"
_SIGNED = re.compile(rb"crc32=[0-9a-f]{8}")


@dataclass(frozen=True)
class Row:
    """The statistic of one metric for one method's map of one image.

    Attributes:
        index: The image's position in the data set.
        image: The image's id.
        model: The model's name.
        target: The class that was explained; None if the model, or the reading of the image, failed
            before there was one.
        label: The true class, if the data has one and the image could be read.
        method: The method's label.
        metric: The metric's label.
        values: The statistic of this image, flattened, float32; None if there was an error.
        shape: The statistic's shape, `()` for a single number; None likewise.
        seconds: What scoring this image takes by itself, its share of the batch; None likewise.
        passes: Images through the model to score this one by itself; None likewise.
        explain_seconds: What explaining it takes by itself; None if that failed.
        explain_passes: Images through the model to explain it by itself; None likewise.
        passes_spent: Of `passes`, how many were made here: the others were those of an earlier
            method or metric on the batch.
        explain_passes_spent: Of `explain_passes`, likewise.
        seconds_spent: What scoring took here; less than `seconds` where passes were shared.
        explain_seconds_spent: What explaining took here, likewise.
        flat: Whether the map is the same everywhere, and points nowhere; None likewise.
        error: Why there are no values; None if there are.
    """

    index: int
    image: str
    model: str
    target: int | None
    label: int | None
    method: str
    metric: str
    values: NDArray[np.float32] | None = None
    shape: tuple[int, ...] | None = None
    seconds: float | None = None
    passes: float | None = None
    explain_seconds: float | None = None
    explain_passes: float | None = None
    passes_spent: float | None = None
    explain_passes_spent: float | None = None
    seconds_spent: float | None = None
    explain_seconds_spent: float | None = None
    flat: bool | None = None
    error: str | None = None


@dataclass(frozen=True)
class Part:
    """What there is of a batch.

    Attributes:
        images: The id of each image by its position, in their order.
        labels: The label of each image, where it has one, by the model that numbers it and the
            image's position.
        rows: The model, method and metric of the rows, each of all the images.
        explained: The models and methods that have a map of any image.
    """

    images: Mapping[int, str]
    labels: Mapping[tuple[str, int], int]
    rows: Set[tuple[str, str, str]]
    explained: Set[tuple[str, str]]


def read_part(path: Path) -> Part:
    """Return what a part has rows of.

    Raises:
        FileFormatError: It is damaged.
    """
    if not check_part(path):
        raise describe_damaged_part(path)
    names = ["index", "image", "model", "label", "method", "metric", "explain_seconds"]
    table = pq.read_table(path, columns=names)
    images = table.group_by(["index", "image", "model", "label"]).aggregate([]).to_pylist()
    costs = [("explain_seconds", "count")]
    groups = table.group_by(["model", "method", "metric"]).aggregate(costs).to_pylist()
    explained = {(x["model"], x["method"]) for x in groups if x["explain_seconds_count"]}
    return Part(
        {x["index"]: x["image"] for x in sorted(images, key=lambda x: x["index"])},
        {(x["model"], x["index"]): x["label"] for x in images if x["label"] is not None},
        {(x["model"], x["method"], x["metric"]) for x in groups},
        explained,
    )


def name_images(pairs: Iterable[tuple[T, str]]) -> dict[T, str]:
    """Return a name of each image: its id, with a number behind it from the second of that id on.

    Args:
        pairs: Something that is different for each image, and the image's id.
    """
    counts: Counter[str] = Counter()
    names = {}
    for image, name in pairs:
        counts[name] += 1
        names[image] = name if counts[name] == 1 else f"{name} ({counts[name]})"
    return names


def encode_part(records: list[dict[str, Any]]) -> bytes:
    """Return the content of a part with these rows, by the names of `SCHEMA`."""
    content = io.BytesIO()
    schema = SCHEMA.with_metadata({"xcam": _UNSIGNED})
    pq.write_table(pa.Table.from_pylist(records, schema), content, compression="zstd")
    return _sign(content.getvalue())


def check_part(path: Path) -> bool:
    """Return whether a part is what was written: its CRC-32, in its metadata, is of all else.

    Parquet's own checksums leave out the metadata, in which a flipped bit moves rows elsewhere.
    """
    content = memoryview(path.read_bytes())
    found = _SIGNED.search(content)
    if found is None:
        return False
    total = zlib.crc32(_UNSIGNED, zlib.crc32(content[: found.start()]))
    return found[0] == b"crc32=%08x" % zlib.crc32(content[found.end() :], total)


def describe_damaged_part(path: Path) -> FileFormatError:
    """Return the error of a part that is not what was written."""
    return FileFormatError(
        f"{str(path)!r} is damaged, or not by xcam; remove it, and call the xcam.evaluate that "
        "wrote it again, which computes its images anew"
    )


def _sign(content: bytes) -> bytes:
    """Return the content of a part with its CRC-32 in place of what stands for it."""
    return content.replace(_UNSIGNED, b"crc32=%08x" % zlib.crc32(content), 1)
