"""`RetrainingResults`: curves of accuracy after retraining, from the outcomes in a folder."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from xcam.results.curve_figures import CurveLabels, draw_curves
from xcam.results.latex import escape
from xcam.runs import files
from xcam.runs.manifest import read_manifest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RetrainingResults"]

_KEYS = ["model", "method", "control", "mode", "fraction"]
_NUMBERS = [
    "repeat",
    "seed",
    "removed",
    "elements",
    "images",
    "correct",
    "correct_unmasked",
    "seconds",
    "parallel",
]
_DIGITS = 15  # of a fraction: 1 − 0.9 is 0.1
_CURVE = ["model", "method", "control", "mode"]


class RetrainingResults:
    """The results of `xcam.roar`, read from the folder of its trainings.

    Accuracies are means over repeats, with the 95 % interval of Student's t: it is of the new
    nets' weights and order of images, not of the choice of test images, which are the same.

    Attributes:
        folder: Where the trainings are.
    """

    def __init__(self, folder: str | Path, *, must_exist: bool = True) -> None:
        """Open a folder that `roar` wrote.

        Args:
            folder: The folder.
            must_exist: Refuse one that does not exist; otherwise it has no trainings.

        Raises:
            FileNotFoundError: There is no such folder.
            FileFormatError: A training in it is damaged.
        """
        self.folder = Path(folder)
        if must_exist and not self.folder.is_dir():
            raise FileNotFoundError(
                f"no folder at {str(self.folder)!r}; give the `out` of a call of xcam.roar"
            )
        paths = sorted(self.folder.glob("trainings/**/repeat-*.json"))
        rows = [read_manifest(path, "retraining") for path in paths]
        found = pd.DataFrame(rows, columns=[*_KEYS, *_NUMBERS, "error"])
        self._rows = found.sort_values([*_KEYS, "repeat"], ignore_index=True)

    def to_pandas(self) -> pd.DataFrame:
        """Return a line for each training.

        Returns:
            `model`, `method`, `control`, `mode` and `fraction`, `repeat`, `seed`; `removed` of the
            `elements` of an image; `images` and `correct`, of the test; `correct_unmasked`, with
            the same net and nothing removed from the test images; `accuracy` and
            `accuracy_unmasked`; `seconds`, of several at once its share; `parallel`, how many these
            were; `error`. The endpoints, nothing removed (fraction 0) and everything (1), have no
            model, method and mode.
        """
        rows = self._rows.copy()
        for name in ("", "_unmasked"):
            accuracy = rows[f"correct{name}"] / rows["images"]
            rows.insert(rows.columns.get_loc("seconds"), f"accuracy{name}", accuracy)
        return rows

    def table(self) -> pd.DataFrame:
        """Return the accuracy at each point, with its interval.

        Returns:
            A line for each model, method, mode and fraction, the ends of each curve included, the
            controls last: `model`, `method`, `control`, `mode`, `fraction` (removed, or kept),
            `value`, `low` and `high` (95 %; NaN of a single repeat), `std` (over repeats),
            `repeats`, `errors`.
        """
        return _summarize(self._expand(), _KEYS)

    def diff_roar(self) -> pd.DataFrame:
        """Return DiffROAR: accuracy without the lowest elements minus accuracy without the highest.

        It is of the same fraction f, wherever both were measured; without the lowest f are the
        trainings that keep the highest 1 − f. Above 0, the map ranks better than at random (Shah et
        al., 2021, arXiv:2102.12781). Repeats are paired. Both counts of elements are rounded down,
        so that the two differ by one element removed where f of them is no whole number.

        Returns:
            A line for each model, method and fraction removed: columns as those of `table`.

        Raises:
            ValueError: One of the two modes was not measured, or no fractions f and 1 − f.
        """
        rows = self._expand()
        rows = rows[rows["fraction"].between(0, 1, inclusive="neither")]
        removed, kept = (rows[rows["mode"] == mode].copy() for mode in ("remove", "keep"))
        removed["fraction"] = removed["fraction"].round(_DIGITS)
        kept["fraction"] = (1 - kept["fraction"]).round(_DIGITS)
        keys = ["model", "method", "control", "fraction", "repeat"]
        pairs = removed.merge(kept, on=keys, suffixes=("", "_kept"))
        if pairs.empty:
            raise ValueError(
                "DiffROAR needs both modes, at fractions f and 1 − f: call roar again with "
                'mode=("remove", "keep")'
            )
        pairs["accuracy"] = pairs["accuracy_kept"] - pairs["accuracy"]
        return _summarize(pairs, ["model", "method", "control", "fraction"])

    def to_csv(self, path: str | Path) -> None:
        """Write `to_pandas`, a line a training.

        Raises:
            OSError: The folder is missing or cannot be written to.
        """
        files.write(path, self.to_pandas().to_csv(index=False).encode())

    def to_latex(self, intervals: bool = True, digits: int = 1) -> str:
        """Return the table in LaTeX, in percent: a line a method, a column a fraction.

        It needs the package booktabs.

        Args:
            intervals: Print half the width of the 95 % interval behind each value.
            digits: After the point.
        """
        table = self.table()
        fractions = sorted(table["fraction"].unique())
        lines = [
            rf"\begin{{tabular}}{{l{'c' * len(fractions)}}}",
            r"\toprule",
            " & ".join(["Method", *(f"{fraction:g}" for fraction in fractions)]) + r" \\",
        ]
        for (model, mode), part in table.groupby(["model", "mode"], sort=False):
            title = escape(f"{model}: {mode}")
            lines += [r"\midrule", rf"\multicolumn{{{len(fractions) + 1}}}{{l}}{{{title}}} \\"]
            for method, line in part.groupby(_name_lines(part), sort=False):
                cells = {row["fraction"]: row for row in line.to_dict("records")}
                shown = (_format(cells.get(f), intervals, digits) for f in fractions)
                lines.append(" & ".join([escape(str(method)), *shown]) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draw accuracy against the fraction, a panel a model and mode, intervals as bands.

        Args:
            path: Where to write the picture, in the format of its suffix.

        Raises:
            ValueError: No curve has a training yet, or matplotlib does not write the format.
            OSError: The folder is missing or cannot be written to.
        """
        table = self.table()
        if table.empty:
            raise ValueError(
                f"there is nothing to draw: no curve in {str(self.folder)!r} has a training yet; "
                "call roar with it as `out` first"
            )
        several = table["model"].nunique() > 1
        panel = table["mode"] if not several else table["model"] + ": " + table["mode"]
        points = table.rename(columns={"fraction": "x", "value": "y"}).assign(
            model=panel,
            method=_name_lines(table),
            low=table["low"].clip(0, 1),
            high=table["high"].clip(0, 1),
        )
        modes = sorted(table["mode"].unique(), reverse=True)
        done = " or ".join({"remove": "removed", "keep": "kept"}[mode] for mode in modes)
        labels = CurveLabels(
            "Accuracy after retraining",
            f"fraction {done}",
            "accuracy",
            controls=points.loc[points["control"], "method"].unique(),
        )
        return draw_curves(points, labels, path)

    def __str__(self) -> str:
        """Return the means as a table with a column a fraction, the counts and the first error."""
        wide = self._pivot()
        shown = [] if wide.empty else [wide.to_string(float_format="{:.3f}".format)]
        return "\n".join([*shown, self._count()])

    def __repr__(self) -> str:
        """Return the folder and what is in it; `print` shows the table."""
        return f"<RetrainingResults in {str(self.folder)!r}: {self._count()}>"

    def _repr_html_(self) -> str:
        """Return the table for notebooks."""
        wide = self._pivot()
        shown = "" if wide.empty else wide.to_html(float_format="{:.3f}".format)
        return f"{shown}\n<p>{html.escape(self._count())}</p>"

    def _pivot(self) -> pd.DataFrame:
        table, keys = self.table(), ["model", "mode", "method"]
        table = table.assign(method=_name_lines(table))
        lines = pd.MultiIndex.from_frame(table[keys].drop_duplicates())
        return table.pivot(index=keys, columns="fraction", values="value").reindex(lines)

    def _count(self) -> str:
        rows = self._rows
        failed = rows["error"].dropna()
        text = f"{len(rows)} trainings, {rows['repeat'].nunique()} repeats, {len(failed)} errors"
        return f"{text}; the first: {failed.iloc[0]}" if len(failed) else text

    def _expand(self) -> pd.DataFrame:
        """Return the rows of each curve: controls for every model, and the ends of each curve."""
        rows = self.to_pandas()
        ends, inner = rows[rows["method"].isna()], rows[rows["method"].notna()]
        models = inner["model"].dropna().unique()
        shared = inner[inner["model"].isna()]
        parts = [inner[inner["model"].notna()]]
        parts += [shared.assign(model=model) for model in (models if len(models) else [""])]
        whole = pd.concat([part for part in parts if len(part)] or [inner])
        for curve in whole[_CURVE].drop_duplicates().to_dict("records"):
            own = ends.assign(**curve)
            if curve["mode"] == "keep":
                own["fraction"] = 1 - own["fraction"]
            whole = pd.concat([whole, own])
        return whole.assign(fraction=whole["fraction"].round(_DIGITS))


def _summarize(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return mean and interval of the accuracies with the same keys, the controls last."""
    lines = list(_iterate_lines(rows, list(keys)))
    if not lines:
        return pd.DataFrame(columns=[*keys, "value", "low", "high", "std", "repeats", "errors"])
    table = pd.DataFrame(lines)
    order = [key for key in ("model", "mode", "control", "method", "fraction") if key in keys]
    return table.sort_values(order, ignore_index=True)


def _iterate_lines(rows: pd.DataFrame, keys: list[str]) -> Iterator[dict[str, Any]]:
    for found, part in rows.groupby(keys):
        values = part["accuracy"].dropna().to_numpy(dtype=float)
        count = len(values)
        mean = float(values.mean()) if count else math.nan
        deviation = float(values.std(ddof=1)) if count > 1 else math.nan
        half = math.nan
        if count > 1:
            half = float(stats.t.ppf(0.975, count - 1)) * deviation / float(np.sqrt(count))
        yield {
            **dict(zip(keys, found, strict=True)),
            "value": mean,
            "low": mean - half,
            "high": mean + half,
            "std": deviation,
            "repeats": count,
            "errors": len(part) - count,
        }


def _name_lines(table: pd.DataFrame) -> pd.Series[str]:
    """Return the name of each line's method, told from a control of the same name."""
    own = set(table.loc[~table["control"].astype(bool), "method"])
    names = [
        f"{method} (control)" if control and method in own else str(method)
        for method, control in zip(table["method"], table["control"], strict=True)
    ]
    return pd.Series(names, index=table.index, dtype=object, name="method")


def _format(line: dict[str, Any] | None, intervals: bool, digits: int) -> str:
    if line is None or math.isnan(line["value"]):
        return "--"
    shown = f"{100 * line['value']:.{digits}f}"
    if not intervals or math.isnan(line["low"]):
        return shown
    half = 100 * (line["high"] - line["value"])
    return rf"{shown} {{\scriptsize $\pm$ {half:.{digits}f}}}"
