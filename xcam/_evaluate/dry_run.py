"""What an evaluation would cost, measured on a handful of images."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from xcam._evaluate.work import Work
from xcam.engine.forward import OutOfTime, limit_time
from xcam.results.parts import Row

__all__ = ["format_estimate", "list_unmeasured", "measure"]

_HANDFUL = 8  # images that are measured
_SECONDS = 25  # that they may take; then one image may take as many


def measure(work: Work) -> tuple[list[Row], float]:
    """Return the rows of a handful of images, and the seconds that they took.

    Where these take too long it is one image; and of that, what can be had in the same time.

    Raises:
        ValueError: Nothing can.
    """
    batches = work.batches
    for count in (_HANDFUL, 1):
        rows: list[Row] = []
        begin = time.perf_counter()
        try:
            with limit_time(_SECONDS):
                work.score(next(batches.load({0: batches.groups[0][:count]})), rows=rows)
            break
        except OutOfTime:
            continue
    if not rows:
        raise ValueError(
            f"one image takes more than {_SECONDS} seconds by the first method alone; measure a "
            "method with fewer passes, or smaller images"
        )
    return rows, time.perf_counter() - begin


def list_unmeasured(work: Work, rows: Sequence[Row]) -> list[str]:
    """List the methods, with their models, of which some rows are missing."""
    found = Counter((row.model, row.method) for row in rows)
    wanted = len(work.comparison.metrics) * len({row.index for row in rows})
    return [
        f"{label} ({name})"
        for name, by_label in work.prepared.items()
        for label in (*by_label, *work.comparison.maps)
        if found[name, label] < wanted
    ]


def format_estimate(
    rows: Sequence[Row],
    seconds: float,
    images: int,
    processes: int,
    unmeasured: Sequence[str] = (),
) -> str:
    """Return a table of the costs of each step, and the time that all images will take.

    Args:
        rows: The rows of the images that were measured.
        seconds: The time that these took, loading included.
        images: The number of images to evaluate on.
        processes: The number of processes that share them.
        unmeasured: What the time did not suffice for.
    """
    measured = len({row.index for row in rows})
    total = timedelta(seconds=math.ceil(seconds / measured * images / processes))
    shared = f" in {processes} processes" if processes > 1 else ""
    failed = sum(row.error is not None for row in rows)
    lines = [
        *_format_costs(rows),
        f"{failed} of {len(rows)} rows are errors" if failed else "no errors",
        f"{'more than' if unmeasured else 'about'} {total} for {images} images{shared}, measured "
        f"on {measured}",
    ]
    if unmeasured:
        lines.insert(-1, f"not measured, they take too long: {', '.join(unmeasured)}")
    return "\n".join(lines)


def _format_costs(rows: Sequence[Row]) -> list[str]:
    """Return a table of mean passes and seconds an image for each model, method and step."""
    costs: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for row in rows:
        for step, passes, seconds in (
            ("explain", row.explain_passes, row.explain_seconds),
            (row.metric, row.passes, row.seconds),
        ):
            known = costs.setdefault((row.model, row.method, step), [])
            if passes is not None and seconds is not None:
                known.append((passes, seconds))
    lines = [("model", "method", "step", "passes", "seconds")]
    lines += [(*step, *_format_means(known)) for step, known in costs.items()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _format_means(costs: Sequence[tuple[float, float]]) -> tuple[str, str]:
    if not costs:
        return "failed", "failed"
    passes, seconds = (sum(column) / len(costs) for column in zip(*costs, strict=True))
    return f"{passes:.4g}", f"{seconds:.3g}"
