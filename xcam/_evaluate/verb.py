"""The verb `evaluate`."""

from __future__ import annotations

import shutil
import sys
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import DataLoader, Dataset

from xcam._evaluate.batches import Data
from xcam._evaluate.dry_run import estimate
from xcam._evaluate.entries import Entries, Maps, Methods, Metrics, Models, check_named
from xcam._evaluate.work import Work
from xcam.engine.forward import Precision
from xcam.errors import XcamWarning
from xcam.results import Results
from xcam.results.store import Store
from xcam.runs.processes import Processes, launched

__all__ = ["evaluate"]


def evaluate(
    model: Models,
    data: DataLoader[Any] | Dataset[Any] | list[Any],
    methods: Methods = None,
    metrics: Metrics = ("insertion", "deletion"),
    target: Literal["predicted", "label"] = "predicted",
    maps: Maps = None,
    out: str | Path | None = None,
    *,
    controls: bool = True,
    fraction: float = 1.0,
    indices: Iterable[int] | None = None,
    batch_size: int | None = None,
    precision: Precision = "full",
    progress: bool = False,
    seed: int = 0,
    save_maps: bool = False,
    dry_run: bool = False,
) -> Results:
    """Scores methods by metrics on a data set, and can be stopped and gone on with at any moment.

    Every method explains a batch once, and all metrics score its maps; the three controls (random
    noise, a Gaussian in the centre, edges) stand beside the methods. Rows go to Parquet parts in
    `out`, a part a batch: called again with the same arguments, an evaluation that was interrupted,
    or killed, loads and computes only what is missing, and ends with the same rows. A method or
    metric that fails on an image leaves a row with the error, and so does an image that cannot be
    read. Memory does not grow with the number of images. Under `accelerate launch --multi_gpu` (on
    CPUs, too) or `torchrun` the processes share the batches; another evaluation in the same
    folder is refused meanwhile.

    Args:
        model: A classifier, or several by name, which see the same images.
        data: A `DataLoader` that does not shuffle, a data set, or a list of batches. A batch is
            (images, labels) or (images, labels, truth): images (B, C, H, W) as the models take
            them, labels (B,) int64, truth for metrics that need it, boxes (B, N, 4) or masks
            (B, H, W). A data set's `ids`, one an image, name the images in the rows.
        methods: Names from `xcam.list_methods()` or method objects, or a dict that labels them.
            None for the one that a model was trained with, and for Grad-CAM if it was trained with
            none. That one's name means the same: with the parameters that the model carries. Of
            several models each is explained by those whose head it carries, or that need none.
        metrics: Names from `xcam.list_metrics()` or metric objects, or a dict that labels them.
        target: Explain the class that the model predicts, or the label.
        maps: Maps from elsewhere to score beside the methods: a folder (what `save_maps` wrote,
            explanations or `.npy` arrays by image id), a callable `(images, ids, target) -> maps`,
            or a dict that labels several.
        out: The folder; None for one that lives as long as the result. It is known for another
            evaluation's by the settings, the models' weights, the images' ids and, if the data set
            has them as `labels`, labels, and by the first and the last image with what is true of
            them; of a folder of maps by the files' names and sizes and the first one's content, of
            a callable by its name, which must not be a lambda's.
        controls: Whether to score the controls, too.
        fraction: The share of the images to use, drawn by `seed`.
        indices: Positions of the images to use; None for all.
        batch_size: Images through the model at a time; None chooses. Changes speed and memory, and
            the rows by rounding alone; but where values of a map nearly tie, their last bits rank
            the pixels, and a point of a removal curve may move by hundredths. An evaluation may go
            on with another one, so keep it for the same bits.
        precision: `"full"`, or `"bf16"`/`"fp16"` to run the models under autocast.
        progress: Show a progress bar.
        seed: Of all that is drawn: `fraction`, the random control, and methods and metrics that
            are given by name; an object keeps its own.
        save_maps: Also write the methods' maps, in half precision at their own resolution, to
            `out/maps/METHOD` (`out/maps/MODEL/METHOD` if there are several models).
        dry_run: Measure one batch, print passes and the estimated time, write nothing to `out`.

    Returns:
        The results; of one batch for a dry run.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: An argument out of its range, a loader that shuffles, images of which the first
            16 cannot be read, labels or truth that are needed and missing, a data set of
            `xcam.data` whose labels are needed and number other classes than a model's, or an
            `out` of another evaluation, each difference named.
        UnknownNameError: No such method or metric.
        NotFittedError: A trainable method whose head a model lacks, or has untrained.
        FileFormatError: A damaged file in `out`, or among the maps.
        OSError: `out` cannot be written to, or another process works there.
    """
    entries = Entries.of(
        model, methods, metrics, maps, target, controls, seed, batch_size, precision
    )
    if out is not None:
        check_named(entries.maps)
    batches = Data.of(data, indices, fraction, seed)
    team = launched()
    if out is None and team.count > 1 and not dry_run:
        raise ValueError(f"{team.count} processes need a folder to share; give out=…")
    work = Work.of(entries, batches, seed, save_maps and not dry_run)
    if dry_run:
        results = _in_passing(lambda folder: _measured(work, folder, team), entries)
    elif out is None:
        results = _in_passing(lambda folder: work.finish(Store(folder), team, progress), entries)
    else:
        work.finish(Store(Path(out)), team, progress)
        results = Results(out, entries.metrics)
    for note in (*work.notes, *results.warnings):
        warnings.warn(note, XcamWarning, stacklevel=2)
    return results


def _measured(work: Work, folder: Path, team: Processes) -> None:
    store = Store(folder)
    store.open(work.manifest())
    rows, seconds = work.measure()
    store.write(0, rows)
    if team.main:
        sys.stdout.write(estimate(rows, seconds, len(work.data), team.count) + "\n")


def _in_passing(work: Callable[[Path], None], entries: Entries) -> Results:
    """Results in a folder that lives as long as they do."""
    folder = Path(tempfile.mkdtemp(prefix="xcam-"))
    try:
        work(folder)
        results = Results(folder, entries.metrics)
    except BaseException:
        shutil.rmtree(folder)
        raise
    weakref.finalize(results, shutil.rmtree, folder, ignore_errors=True)
    return results
