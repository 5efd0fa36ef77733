"""What an evaluation would take, from one measured batch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import timedelta

from xcam.results.store import Row

__all__ = ["estimate"]


def estimate(rows: Sequence[Row], seconds: float, images: int, processes: int) -> str:
    """Passes and seconds an image of each step, and the time that all images will take.

    Args:
        rows: Of the batch that was measured.
        seconds: What that batch took, with loading.
        images: How many there are to evaluate on.
        processes: How many share them.
    """
    measured = len({row.index for row in rows})
    total = timedelta(seconds=math.ceil(seconds / measured * images / processes))
    among = f" in {processes} processes" if processes > 1 else ""
    lines = [("model", "method", "step", "passes", "seconds"), *_steps(rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    failed = sum(row.error is not None for row in rows)
    return "\n".join(
        [
            *table,
            f"{failed} of {len(rows)} rows are errors" if failed else "no errors",
            f"about {total} for {images} images{among}, measured on {measured}",
        ]
    )


def _steps(rows: Iterable[Row]) -> list[tuple[str, str, str, str, str]]:
    """Each model's and method's steps, passes and seconds an image, in their order."""
    found: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for row in rows:
        for step, passes, seconds in (
            ("explain", row.explain_passes, row.explain_seconds),
            (row.metric, row.passes, row.seconds),
        ):
            costs = found.setdefault((row.model, row.method, step), [])
            if passes is not None and seconds is not None:
                costs.append((passes, seconds))
    return [(*place, *_means(costs)) for place, costs in found.items()]


def _means(costs: Sequence[tuple[float, float]]) -> tuple[str, str]:
    if not costs:
        return "failed", "failed"
    passes, seconds = (sum(column) / len(costs) for column in zip(*costs, strict=True))
    return f"{passes:.4g}", f"{seconds:.3g}"
