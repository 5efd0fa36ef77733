"""Charts of a page: where their lines, points and ticks are, for the template to draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

__all__ = ["GRAY", "Chart", "Marker", "Series", "draw_cost", "draw_curve", "draw_ranks"]

_WIDTH, _HEIGHT = 420, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 12, 10, 40
_ROW = 18  # of the chart of ranks
_NAMES = 150  # its left margin
_LONGEST = 24  # letters of a name beside it
GRAY = "gray"
"""The color of controls."""
_FINEST = 120  # points of a curve that are drawn


@dataclass(frozen=True)
class Marker:
    """How a method looks in each chart.

    Attributes:
        number: Beside its name in tables and in its points.
        name: What it is called.
        color: A class of the style sheet.
        dashes: Of its line, as SVG takes them; empty for a solid line.
    """

    number: int
    name: str
    color: str
    dashes: str


@dataclass(frozen=True)
class Series:
    """What a chart shows of one method, in pixels.

    Attributes:
        marker: Of the method.
        points: Of the line, or of the small dots.
        band: The outline of the interval.
        at: The place of the large dot, if there is one.
        tip: What the dot says of itself.
        is_front: Whether no other method is better in both respects.
    """

    marker: Marker
    points: str = ""
    band: str = ""
    small: Sequence[tuple[float, float]] = ()
    at: tuple[float, float] | None = None
    tip: str = ""
    is_front: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart: its size, its ticks and what is in it.

    Attributes:
        title: Above it.
        x: What the abscissa is.
        y: What the ordinate is.
        x_ticks: Pixels and texts.
        y_ticks: Likewise.
        series: A method each.
        width: In pixels.
        height: In pixels.
        left: The width of its left margin.
        note: Behind the title.
        right: The width of its right margin.
        top: The height of its upper margin.
        bottom: The height of its lower margin.
    """

    title: str
    x: str
    y: str
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    series: Sequence[Series]
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    note: str = ""
    right: int = field(default=_RIGHT, init=False)
    top: int = field(default=_TOP, init=False)
    bottom: int = field(default=_BOTTOM, init=False)


@dataclass(frozen=True)
class _Axis:
    """A range of values on a range of pixels."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high, at = (
            (math.log10(one) for one in (self.low, self.high, value))
            if self.is_log
            else (self.low, self.high, value)
        )
        return round(self.start + (at - low) / (high - low) * (self.end - self.start), 1)

    def list_ticks(self) -> list[tuple[float, str]]:
        """Return pixels and texts of round values within the range."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        locator = LogLocator(subs=(1, 2, 5)) if self.is_log else MaxNLocator(5)
        low, high = sorted((self.low, self.high))
        values = [float(one) for one in locator.tick_values(low, high) if low <= one <= high]
        return [(self.place(one), f"{one:.4g}".replace("-", "−")) for one in values]


def draw_curve(
    title: str, axes: tuple[str, str], points: pd.DataFrame, markers: Mapping[str, Marker]
) -> Chart:
    """Return a chart of one model's curves with their intervals; see `Results.curves`."""
    values = points[["y", "low", "high"]].to_numpy()
    x = _make_axis(points["x"].to_numpy(), _LEFT, _WIDTH - _RIGHT)
    y = _make_axis(values, _HEIGHT - _BOTTOM, _TOP)
    series = []
    for method, curve in points.groupby("method", sort=False):
        thin = curve.iloc[_choose(len(curve))]
        upper, lower = (_join(x, y, thin["x"], thin[name]) for name in ("high", "low"))
        band = " ".join([upper, *reversed(lower.split(" "))])
        series.append(Series(markers[method], _join(x, y, thin["x"], thin["y"]), band))
    return Chart(title, *axes, x.list_ticks(), y.list_ticks(), series)


def draw_ranks(ranks: pd.DataFrame, markers: Mapping[str, Marker]) -> Chart:
    """Return a chart of a line a method: its rank by each metric, and their mean.

    Args:
        ranks: A line a method, a column a metric, and `mean`, the best method first.
        markers: Of the methods.
    """
    height = _TOP + _ROW * len(ranks) + _BOTTOM
    most = max(2.0, float(np.nanmax(ranks.to_numpy())))
    x = _Axis(1, most, _NAMES + 12, _WIDTH - _RIGHT - 6)
    series, names = [], []
    for row, (method, line) in enumerate(ranks.iterrows()):
        marker, at = markers[str(method)], _TOP + _ROW * (row + 0.5)
        known = line.drop("mean").dropna()
        small = [(x.place(rank), at) for rank in known]
        listed = ", ".join(f"{metric} {rank:g}" for metric, rank in known.items())
        tip = f"{marker.name}: mean rank {line['mean']:.2f} ({listed})"
        series.append(Series(marker, small=small, at=(x.place(line["mean"]), at), tip=tip))
        name = f"{marker.number} {marker.name}"
        short = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
        names.append((at, short))
    step = max(1, math.ceil((most - 1) / 10))
    ticks = [(x.place(rank), str(rank)) for rank in range(1, int(most) + 1, step)]
    return Chart(
        "Ranks by each metric, and their mean",
        "rank (1 is best)",
        "",
        ticks,
        names,
        series,
        height=height,
        left=_NAMES,
    )


def draw_cost(
    title: str,
    quality: Mapping[str, float],
    seconds: Mapping[str, float],
    markers: Mapping[str, Marker],
    label: str,
    is_higher_better: bool,
) -> Chart | None:
    """Return a chart of what methods achieve against what they cost, better ones above.

    Args:
        title: Above it.
        quality: By method.
        seconds: To explain an image, by method.
        markers: Of the methods.
        label: What the quality is.
        is_higher_better: Its direction.

    Returns:
        None if fewer than two methods have both.
    """
    known = [
        method
        for method in markers
        if math.isfinite(quality.get(method, math.nan)) and seconds.get(method, 0) > 0
    ]
    if len(known) < 2:
        return None
    costs, values = (np.array([of[one] for one in known]) for of in (seconds, quality))
    x = _make_axis(costs, _LEFT + 8, _WIDTH - _RIGHT - 8, True)
    span = (_HEIGHT - _BOTTOM - 10, _TOP + 10)
    y = _make_axis(values, *(span if is_higher_better else span[::-1]))
    methods = [one for one in known if markers[one].color != GRAY]
    front = _find_front(methods, quality, seconds, 1 if is_higher_better else -1)
    series = [
        Series(
            markers[one],
            at=(x.place(seconds[one]), y.place(quality[one])),
            tip=f"{markers[one].name}: {quality[one]:.4g}, {seconds[one]:.3g} s an image",
            is_front=one in front,
        )
        for one in known
    ]
    return Chart(
        title, "seconds to explain an image", label, x.list_ticks(), y.list_ticks(), series
    )


def _find_front(
    methods: Sequence[str], quality: Mapping[str, float], seconds: Mapping[str, float], sign: int
) -> set[str]:
    """Return the methods that no faster one equals."""
    front, best = set(), -math.inf
    for method in sorted(methods, key=lambda one: (seconds[one], -sign * quality[one])):
        if sign * quality[method] > best:
            best = sign * quality[method]
            front.add(method)
    return front


def _make_axis(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    start: float,
    end: float,
    is_log: bool = False,
) -> _Axis:
    """Return an axis over all values, of some width where they are one."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if is_log:
        spread = 1.3 if high < 1.5 * low else 1
        return _Axis(low / spread, high * spread, start, end, True)
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        half = 0.5 * abs(high) or 0.5
        low, high = low - half, high + half
    return _Axis(low, high, start, end)


def _choose(count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the positions of evenly spaced points, the last one among them."""
    return np.unique(np.linspace(0, count - 1, min(count, _FINEST)).round().astype(np.int64))


def _join(x: _Axis, y: _Axis, abscissae: pd.Series[float], ordinates: pd.Series[float]) -> str:
    pairs = zip(abscissae, ordinates, strict=True)
    return " ".join(f"{x.place(a):g},{y.place(b):g}" for a, b in pairs if math.isfinite(b))
