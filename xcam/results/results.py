"""`Results`: tables, intervals and comparisons from the rows of an evaluation."""

from __future__ import annotations

import html
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from xcam.core import Metric
from xcam.results import latex, manifest, markdown, wide
from xcam.results.bootstrap import Sample
from xcam.results.contrasts import By, choose_pairs, tabulate_differences, tabulate_wins
from xcam.results.curve_figures import CurveLabels, draw_curves, draw_image_curves
from xcam.results.curves import tabulate_curves, tabulate_image_curves
from xcam.results.estimates import tabulate
from xcam.results.merging import merge_folders
from xcam.results.page import Findings, write_results_page
from xcam.results.rows import Group, Rows
from xcam.results.sheet import Sheet, make_sheet
from xcam.runs import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Results"]


class Results:
    """The results of an evaluation, read from the rows in its folder.

    Nothing is held but the folder and a summary: each call reads the rows it needs, each part once
    unless they would take too much memory. Intervals are 95 % BCa bootstrap intervals over images;
    results are the same in each call.

    Attributes:
        folder: Where the rows are.
        metrics: The metrics by their labels.
    """

    def __init__(self, folder: str | Path, metrics: Mapping[str, Metric] | None = None) -> None:
        """Open a folder that `evaluate` wrote.

        Args:
            folder: Holds `manifest.json` and `rows/`.
            metrics: The metrics by their labels; by default they are made again from the
                manifest, which takes settings that can be written down.

        Raises:
            FileNotFoundError: The folder holds no rows.
            FileFormatError: It is damaged.
            ValueError: A metric of the rows is not given, or cannot be made again.
        """
        self.folder = Path(folder)
        self._rows = Rows(self.folder)
        labels = self._rows.summary["metric"].unique()
        self.metrics = dict(manifest.load_metrics(self.folder) if metrics is None else metrics)
        missing = [label for label in labels if label not in self.metrics]
        if missing:
            raise ValueError(f"the rows hold other metrics than those given: {', '.join(missing)}")
        self.metrics = {label: self.metrics[label] for label in sorted(labels)}
        self._controls = manifest.load_controls(self.folder)
        self._images = manifest.count_images(self.folder)
        self._tables: dict[tuple[int, int], pd.DataFrame] = {}

    def merge(self, *others: Results, out: str | Path | None = None) -> Results:
        """Return the results of this evaluation and others together.

        They may be of other methods, metrics, models or images, and were made with the same seed,
        target and precision; what they share must be the same, as in a folder that
        `xcam.evaluate` goes on with. Images are the same if their ids are. Of rows that several
        have, the first's are taken. Intervals and comparisons are computed from all rows.

        Args:
            others: The other results.
            out: The new folder of the rows, in which `xcam.evaluate` may go on; stored maps are
                not copied. None for one that lives as long as the result.

        Raises:
            ValueError: They are different evaluations, each difference named, or `out` is not an
                empty or new folder.
        """
        every = [self, *others]
        metrics = {label: one for each in reversed(every) for label, one in each.metrics.items()}
        folders = [each.folder for each in every]
        if out is not None:
            merge_folders(folders, Path(out))
            return Results(out, metrics)
        folder = Path(tempfile.mkdtemp(prefix="xcam-"))
        try:
            merge_folders(folders, folder)
            merged = Results(folder, metrics)
        except BaseException:
            shutil.rmtree(folder)
            raise
        weakref.finalize(merged, shutil.rmtree, folder, ignore_errors=True)
        return merged

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return a sentence for each model and method with flat maps, or without some images."""
        count, flat = len(self._rows.index), self._count_flat_maps()
        sentences = [
            f"{number} of {count} maps of {method!r} are flat, they point nowhere ({model})"
            for (model, method), number in flat[flat > 0].items()
        ]
        lacking = self._rows.summary.assign(lacks=lambda x: count - x["rows"] - x["errors"])
        lacking = lacking[lacking["lacks"] > 0]
        for (model, method, number), lines in lacking.groupby(["model", "method", "lacks"]):
            sentences.append(
                f"{number} of {count} images have no row of {method!r} ({model}) by "
                f"{', '.join(lines['metric'])}; name both when you call evaluate again"
            )
        return tuple(sentences)

    @property
    def first_errors(self) -> tuple[str, ...]:
        """Return the first error of each method, a sentence for all of a model that share it."""
        who: dict[tuple[str, str], list[str]] = {}
        for (model, method), error in self._rows.find_first_errors().items():
            who.setdefault((model, error), []).append(method)
        return tuple(
            f"first error of {', '.join(methods)} ({model}): {error}"
            for (model, error), methods in who.items()
        )

    def table(self, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
        """Return every result with its interval.

        Args:
            resamples: Of the bootstrap.
            seed: Of the bootstrap.

        Returns:
            A line for each model, metric and method, the best method first and the controls after
            the others: `model`, `metric`, `direction` (`"higher"`, `"lower"` or `"neither"` is
            better), `method`, `control`, `value`, `low` and `high` (the 95 % interval; NaN of a
            single image), `n` (images), `rows`, `errors`, `flat` (rows of a map that is the same
            everywhere: it orders no pixels, and its score is that of the pixels' places).
            Where a result is undefined on some resamples, such as a ratio of hits, they are left
            out of the interval and a warning says of how many.
        """
        if (resamples, seed) not in self._tables:
            self._tables[resamples, seed] = tabulate(
                self._rows, self.metrics, self._controls, resamples, seed
            )
        return self._tables[resamples, seed].copy()

    def compare(
        self,
        a: str | None = None,
        b: str | None = None,
        *,
        reference: str | None = None,
        by: By = "method",
        resamples: int = 10_000,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Compare methods, or models, on the same images.

        Give `a` and `b` for that pair, `reference` for every other one against it, nothing for all
        pairs. A row counts if it worked for both.

        Args:
            a: A method (or model).
            b: Another.
            reference: One that all others are compared with.
            by: What the names are of: methods on the same model, or models under the same method.
            resamples: Of the bootstrap. They need not grow with the table: what they are too few
                to tell is read off Student's t; see `xcam.results.bootstrap.Estimate.p_value`.
            seed: Of the bootstrap.

        Returns:
            A line for each metric and pair: `a`, `b`, `difference` (a − b), `low` and `high` (its
            95 % interval), `p` (two-sided, for a difference of zero), `p_holm` (for all lines of
            this table together), `better` (the one that is better if p_holm < 0.05, else empty),
            `n` (images).

        Raises:
            ValueError: No such method or model, or both a pair and a reference.
        """
        if by not in ("method", "model"):
            raise ValueError(f"by must be 'method' or 'model', got {by!r}")
        names = sorted(self._rows.summary[by].unique())
        pairs = choose_pairs(names, a, b, reference)
        return tabulate_differences(self._rows, self.metrics, pairs, by, resamples, seed)

    def ranks(self) -> pd.DataFrame:
        """Rank the methods by each metric, 1 the best, ties sharing a rank, a model at a time.

        Returns:
            A line for each model and method (the index), a column for each metric that has a
            direction and reads maps, and `mean`, over those that a method has results of; best
            first.
        """
        table = self.table()
        reading = [label for label, metric in self.metrics.items() if metric.spec.reads_maps]
        score = table["value"] * table["direction"].map({"higher": -1.0, "lower": 1.0})
        score = score.where(table["metric"].isin(reading))
        ranked = table.assign(rank=score.groupby([table["model"], table["metric"]]).rank())
        ranks = ranked.pivot_table(index=["model", "method"], columns="metric", values="rank")
        ranks["mean"] = ranks.mean(axis=1)
        ranks.columns.name = None
        return ranks.sort_values(["model", "mean", "method"])

    def wins(self, metric: str, model: str | None = None) -> pd.DataFrame:
        """Return the percentage of images on which a method (line) is better than another (column).

        Ties count half, so that a method beats itself on 50 %.

        Args:
            metric: One with a direction whose result is a mean over images; of any other, a
                single image has no value of its own.
            model: Which; the only one by default.

        Raises:
            ValueError: No such metric or model, or the metric is not of that kind.
        """
        models = sorted(self._rows.summary["model"].unique())
        if model is None and len(models) > 1:
            raise ValueError(f"say which model: there are {', '.join(models)}")
        if model is not None and model not in models:
            raise ValueError(f"no results of {model!r}; there are {', '.join(models)}")
        samples = self._read_samples(metric, model)
        return tabulate_wins(
            metric, self._find_metric(metric), ((method, one) for (_, method), one in samples)
        )

    def curves(self, metric: str, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
        """Return the curve behind a metric, with 95 % percentile bootstrap intervals at each point.

        Returns:
            A line for each model, method and point: `x`, `y`, `low`, `high`.

        Raises:
            ValueError: No such metric, or one without a curve.
        """
        found = self._find_metric(metric)
        return tabulate_curves(metric, found, self._read_samples(metric), resamples, seed)

    def plot_curves(
        self,
        metric: str,
        path: str | Path | None = None,
        *,
        samples: int = 0,
        model: str | None = None,
        methods: Sequence[str] | None = None,
    ) -> Figure:
        """Draw `curves`, a panel a model, the intervals as bands, controls dashed in gray.

        The legend gives the area under each curve, over the width of its abscissa.

        Args:
            metric: One with a curve.
            path: Where to write the picture, in the format of its suffix.
            samples: At most how many curves of single images to draw as thin lines, evenly spaced
                in the data; with any, each method gets a panel of its own.
            model: The one to draw; all by default.
            methods: The ones to draw, in their order; all by default.

        Raises:
            ValueError: See `curves`; no such model or method; or matplotlib does not write the
                format.
        """
        found, points = self._find_metric(metric), self.curves(metric)
        points = _choose_rows(points, model, methods)
        x, y = found.curve_axes
        titles = manifest.load_titles(self.folder)
        labels = CurveLabels(found.spec.title, x, y, titles, self._controls)
        if samples < 1:
            return draw_curves(points, labels, path)
        thin = tabulate_image_curves(found, self._read_samples(metric), samples)
        return draw_image_curves(points, thin, labels, path)

    def costs(self) -> pd.DataFrame:
        """Return what an image cost: a line for each model, method and metric.

        Returns:
            `model`, `method`, `metric`, `seconds` and `passes` (images through the model) to
            score one image, `explain_seconds` and `explain_passes` to explain it once, each by
            itself. How many passes were really made, those that methods and metrics share counted
            once, is in the rows: `passes_spent`, `seconds_spent` and both with `explain_` before.
        """
        return self._rows.summary.drop(columns=["rows", "errors", "flat"])

    def errors(self) -> pd.DataFrame:
        """Return the rows that failed: `index`, `image`, `model`, `method`, `metric`, `error`."""
        columns = ["index", "image", "model", "method", "metric", "error"]
        return self._rows.to_frame(failed=True)[columns]

    def to_pandas(self, metric: str | None = None) -> pd.DataFrame:
        """Return the rows of one metric, or all, unreduced: they may need much memory."""
        return self._rows.to_frame(metric)

    def to_csv(self, path: str | Path | None = None) -> str:
        """Return `table()` as CSV, numbers with all their digits.

        Args:
            path: Where to write it, too.
        """
        return _write(self.table().to_csv(index=False), path)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return `table()` as JSON: a list of objects, null for NaN.

        Args:
            path: Where to write it, too.
        """
        return _write(f"{self.table().to_json(orient='records', indent=1)}\n", path)

    def to_markdown(
        self, intervals: bool = False, digits: int = 3, path: str | Path | None = None
    ) -> str:
        """Return the table in Markdown; see `to_latex`."""
        return _write(markdown.render_table(self._make_sheet(intervals, digits)), path)

    def to_latex(
        self, intervals: bool = True, digits: int = 3, path: str | Path | None = None
    ) -> str:
        """Return the table in LaTeX: a line a method, a column a metric, the best in bold.

        It needs the package booktabs. Methods and metrics have their titles, unless they were
        given other labels. The best value is in bold, and so are those that print the same; a star
        marks methods that are not significantly worse: on the same images, by the paired bootstrap
        with Holm's correction, at 5 %. Controls are not marked, nor are results of a metric that
        reads no maps or has no direction. A dagger marks methods with flat maps.

        Args:
            intervals: Print the 95 % interval behind each value.
            digits: After the point.
            path: Where to write it, too.
        """
        return _write(latex.render_table(self._make_sheet(intervals, digits)), path)

    @cached_property
    def _best_groups(self) -> set[tuple[str, str, str]]:
        """Return what every form of the table marks: the paired bootstrap is its largest part."""
        return wide.find_best_groups(self._rows, self.metrics, self.table())

    def _make_sheet(self, intervals: bool, digits: int) -> Sheet:
        table, titles = self.table(), manifest.load_titles(self.folder)
        return make_sheet(table, self._best_groups, self.metrics, titles, intervals, digits)

    def to_html(
        self,
        path: str | Path,
        data: Any = None,  # noqa: ANN401 - what `evaluate` takes
        *,
        title: str = "",
        seed: int = 0,
        examples: int = 6,
        worst: int = 6,
    ) -> None:
        """Write one page of HTML that holds all that it shows, to pass on or to print.

        A section a model: the table, which sorts by a click, with intervals and the best group of
        each metric marked; ranks; cost against quality; curves with their intervals; and, where
        maps are stored (`evaluate(…, save_maps=True)`), images under the maps of the best twelve
        methods. Then what each metric is, the settings of each method, facts of the run, the
        command that made it and the same call in Python.

        Args:
            path: The file, such as `"report.html"`; one that exists is replaced.
            data: The data set that was evaluated, or a loader of it, for the images below the
                maps, found by their ids. Without it, maps are shown on gray.
            title: Of the page.
            seed: Draws the examples.
            examples: How many images to draw.
            worst: How many images to show on which the methods score worst.

        Raises:
            ValueError: The data lacks an image, or a count is negative.
            FileFormatError: A damaged file in the folder.
            OSError: The page cannot be written.
        """
        if min(examples, worst) < 0:
            raise ValueError(f"examples and worst must be at least 0, got {examples} and {worst}")
        table = self.table()
        found = Findings(
            folder=self.folder,
            metrics=self.metrics,
            controls=self._controls,
            titles=manifest.load_titles(self.folder),
            table=table,
            ranks=self.ranks(),
            costs=self.costs(),
            curves={label: self.curves(label) for label in self.metrics if self._has_curve(label)},
            best=self._best_groups,
            summary=self._describe_counts(),
            notices=[*self.warnings, *self.first_errors],
            samples=self._read_samples,
            images=self._rows.image_ids,
        )
        heading = title or f"Evaluation of {', '.join(table['model'].unique())}"
        write_results_page(path, found, data, heading, seed, examples, worst)

    def to_text(self, width: int | None = None) -> str:
        """Return the results as text: a line a method, a column a metric, then what failed.

        A star marks the best method of a metric and those that are not significantly worse: on the
        same images, by the paired bootstrap with Holm's correction, at 5 %. Columns beyond `width`
        letters are left out, and named.
        """
        shown = wide.render_wide(self.table(), self._best_groups, width)
        return "\n".join([shown, *self._describe_rest()])

    def __str__(self) -> str:
        """Return the table, how many rows failed, which maps are flat, and first errors."""
        shown = self.table().to_string(index=False, float_format="{:.4f}".format)
        return "\n".join([shown, *self._describe_rest()])

    def _describe_rest(self) -> list[str]:
        return [self._describe_counts(), *self.warnings, *self.first_errors]

    def __repr__(self) -> str:
        """Return the folder and what is in it; `print` shows the table."""
        return f"<Results in {str(self.folder)!r}: {self._describe_counts()}>"

    def _repr_html_(self) -> str:
        """Return the table for notebooks."""
        shown = self.table().to_html(index=False, float_format="{:.4f}".format)
        lines = map(html.escape, self._describe_rest())
        return "\n".join([shown, *(f"<p>{line}</p>" for line in lines)])

    def _describe_counts(self) -> str:
        summary = self._rows.summary
        counts = {name: summary[name].nunique() for name in ("model", "method", "metric")}
        names = (f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items())
        failed, done = int(summary["errors"].sum()), len(self._rows.index)
        rows = f"{done}" if done == self._images else f"unfinished: {done} of {self._images}"
        flat = int(self._count_flat_maps().sum())
        found = f"{', '.join(names)}, {rows} rows each, {failed} errors"
        return f"{found}, {flat} flat maps" if flat else found

    def _count_flat_maps(self) -> pd.Series[int]:
        """Count the flat maps of each model and method, the same in each metric's rows."""
        return self._rows.summary.groupby(["model", "method"])["flat"].max()

    def _has_curve(self, label: str) -> bool:
        """Return whether a metric has a curve, and a row to read it from."""
        groups = self._rows.list_groups(label)
        if not groups or type(self.metrics[label]).curve is Metric.curve:
            return False
        _, sample = next(self._read_samples(label, groups[0][0]))
        return self.metrics[label].curve(sample.mean()) is not None

    def _find_metric(self, label: str) -> Metric:
        if label not in self.metrics:
            raise ValueError(f"no results of {label!r}; there are {', '.join(self.metrics)}")
        return self.metrics[label]

    def _read_samples(self, label: str, model: str | None = None) -> Iterator[tuple[Group, Sample]]:
        """Yield the statistics of each group, of one model alone if it is named."""
        groups = [
            group for group in self._rows.list_groups(label) if model is None or group[0] == model
        ]
        for portion in self._rows.split_groups({label: groups}):
            batch = self._rows.read_batches(portion)[label]
            yield from zip(batch.groups, batch.samples, strict=True)
            del batch  # before the next is read


def _choose_rows(
    points: pd.DataFrame, model: str | None, methods: Sequence[str] | None
) -> pd.DataFrame:
    """Return the rows of one model, and of some methods in their order.

    Raises:
        ValueError: No such model or method.
    """
    chosen = [] if methods is None else [methods] if isinstance(methods, str) else [*methods]
    for what, name in [("model", model), *(("method", one) for one in chosen)]:
        known = points[what].unique()
        if name is not None and name not in known:
            raise ValueError(f"no results of the {what} {name!r}; there are {', '.join(known)}")
    if model is not None:
        points = points[points["model"] == model]
    if methods is None:
        return points
    return pd.concat([points[points["method"] == one] for one in chosen])


def _write(text: str, path: str | Path | None) -> str:
    if path is not None:
        files.write(path, text.encode())
    return text
