"""Differences between methods, or models, on the same images, and how often one wins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, combinations
from typing import Any, Literal, TypeAlias

import pandas as pd
from torch import Tensor

from xcam.core import Metric
from xcam.results.bootstrap import Estimate, Sample, finish_each
from xcam.results.estimates import Estimates, make_estimates, warn_undefined
from xcam.results.rows import Group, Rows
from xcam.results.significance import adjust_holm

__all__ = ["By", "choose_pairs", "score_images", "tabulate_differences", "tabulate_wins"]

By: TypeAlias = Literal["method", "model"]
_COLUMNS = ["model", "method", "metric", "a", "b", "difference", "low", "high", "p", "n"]


def choose_pairs(
    names: Sequence[str], a: str | None, b: str | None, reference: str | None
) -> list[tuple[str, str]]:
    """Return the requested pairs: one, every name with the reference, or all.

    Raises:
        ValueError: An unknown name, half a pair, or both a pair and a reference.
    """
    for name in (a, b, reference):
        if name is not None and name not in names:
            raise ValueError(f"no results of {name!r}; there are {', '.join(names)}")
    if (a is None) != (b is None) or (a is not None and (a == b or reference is not None)):
        raise ValueError("give two different names, or a reference, or nothing for all pairs")
    if a is not None and b is not None:
        return [(a, b)]
    if reference is not None:
        return [(name, reference) for name in names if name != reference]
    return list(combinations(names, 2))


def tabulate_differences(
    rows: Rows,
    metrics: Mapping[str, Metric],
    pairs: Sequence[tuple[str, str]],
    by: By,
    resamples: int,
    seed: int,
    model: str | None = None,
) -> pd.DataFrame:
    """Return the table of `Results.compare`, of one model alone if it is named."""
    groups = {
        label: [group for group in rows.list_groups(label) if model in (None, group[0])]
        for label in metrics
    }
    matched = {label: _match_groups(groups[label], pairs, by) for label in metrics}
    wanted = {label: list(dict.fromkeys(chain(*found))) for label, found in matched.items()}
    estimate_rows = partial(make_estimates, rows, metrics, resamples=resamples, seed=seed)
    estimates: Estimates = {}
    for portion in rows.split_groups(wanted):
        estimates |= estimate_rows(portion)
    lines, undefined = [], []
    couples = [(label, *couple) for label, found in matched.items() for couple in found]
    for label, first, second in couples:
        difference = _subtract(label, first, second, estimates, estimate_rows)
        lines.append(_make_line(label, first, second, difference))
        undefined.append((label, difference.undefined))
    warn_undefined(undefined, resamples)
    table = pd.DataFrame(lines, columns=_COLUMNS).drop(columns=by)
    table["p_holm"] = adjust_holm(table["p"].tolist())
    signs = {True: 1, False: -1, None: 0}
    table["better"] = [
        _choose_better(line, signs[metrics[line["metric"]].spec.higher_is_better])
        for line in table.to_dict("records")
    ]
    return table


def tabulate_wins(
    label: str, metric: Metric, samples: Iterable[tuple[str, Sample]]
) -> pd.DataFrame:
    """Return the table of `Results.wins`, from the statistics of one method after the other."""
    if metric.spec.higher_is_better is None:
        raise ValueError(f"{label!r} has no direction, so that no method wins by it")
    sign = 1 if metric.spec.higher_is_better else -1
    values = {name: sign * score_images(label, metric, sample) for name, sample in samples}
    return pd.DataFrame(
        {b: {a: _compute_win_rate(values[a] - values[b]) for a in values} for b in values}
    )


def _match_groups(
    groups: Sequence[Group], pairs: Sequence[tuple[str, str]], by: By
) -> list[tuple[Group, Group]]:
    """Return the pairs of groups that differ in the method, or the model, and in nothing else."""
    shared_position = 0 if by == "method" else 1
    shared = dict.fromkeys(group[shared_position] for group in groups)
    found = [
        ((name, a), (name, b)) if by == "method" else ((a, name), (b, name))
        for name in shared
        for a, b in pairs
    ]
    return [(first, second) for first, second in found if {first, second} <= set(groups)]


def _subtract(
    label: str,
    first: Group,
    second: Group,
    estimates: Estimates,
    estimate_rows: Callable[..., Estimates],
) -> Estimate:
    """Return the difference of two groups on the rows that worked for both."""
    (one, here), (other, there) = estimates[label, first], estimates[label, second]
    if here.equal(there):
        return one - other
    both = here & there
    # One after the other, so that only the rows of one are in memory.
    one, other = (
        estimate_rows({label: [group]}, both)[label, group][0] for group in (first, second)
    )
    return one - other


def _make_line(label: str, first: Group, second: Group, difference: Estimate) -> dict[str, Any]:
    low, high = difference.interval()
    return {
        "model": first[0],
        "method": first[1],
        "metric": label,
        "a": first[1] if first[0] == second[0] else first[0],
        "b": second[1] if first[0] == second[0] else second[0],
        "difference": difference.value,
        "low": low,
        "high": high,
        "p": difference.p_value(),
        "n": difference.images,
    }


def _choose_better(line: Mapping[str, Any], sign: int) -> str:
    """Return the name that is significantly better; empty if none is, or without a direction."""
    if not line["p_holm"] < 0.05 or sign == 0:
        return ""
    return str(line["a"] if sign * line["difference"] > 0 else line["b"])


def score_images(label: str, metric: Metric, sample: Sample) -> Tensor:
    """Return the result of each image, (C,), of a metric whose result is the mean of them.

    Raises:
        ValueError: It is not.
    """
    values = finish_each(sample, metric.finish)
    known = sample.sizes > 0
    mean = float((values * sample.sizes)[known].sum() / sample.sizes.sum())
    whole = float(metric.finish(sample.mean()))
    if abs(mean - whole) > 1e-6 * (1 + abs(whole)):
        raise ValueError(
            f"the result of {label!r}, {whole:.6g}, is not the mean over images, {mean:.6g}, so "
            "that no image has a value to win by; use compare()"
        )
    return values


def _compute_win_rate(gains: Tensor) -> float:
    """Return how often a gain is positive, in percent, ties half; NaN is left out."""
    known = gains[~gains.isnan()]
    return float(50 * (1 + known.sign()).mean())
