"""The verb `evaluate`."""

from __future__ import annotations

import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import DataLoader, Dataset

from xcam._evaluate.batches import Batches
from xcam._evaluate.comparison import Comparison, Maps, Methods, Metrics, Models, check_identity
from xcam._evaluate.dry_run import format_estimate, list_unmeasured, measure
from xcam._evaluate.identity import describe_work
from xcam._evaluate.work import Work
from xcam.engine.forward import Precision
from xcam.errors import warn
from xcam.results import Results
from xcam.results.manifest import load_metrics
from xcam.results.store import Store
from xcam.runs.processes import Processes, get_processes

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
    """Score methods by metrics on a data set; an interrupted call resumes where it stopped.

    Every method explains a batch once, and all metrics score its maps. Three controls are scored
    beside the methods: random noise, a Gaussian in the center, edges. Rows go to Parquet parts in
    `out`, one part a batch. Called again with the same arguments after it was interrupted or
    killed, `evaluate` loads and computes only the missing batches, and ends with the same rows.
    Called again with more models, methods, maps, metrics or images it computes what is new and
    keeps the rest, also what it is not given any more, and returns the results of all. A
    method or metric that fails on an image leaves a row with the error, and so does an image that
    cannot be read. Memory does not grow with the number of images. Under `accelerate launch
    --multi_gpu` (on CPUs, too) or `torchrun` the processes share the batches; another evaluation in
    the same folder is refused meanwhile.

    Args:
        model: A classifier, or a dict of several by name, which see the same images.
        data: A `DataLoader` that does not shuffle, a data set, or a list of batches. A batch is
            (images, labels) or (images, labels, truth): images (B, C, H, W) as the models take
            them, labels (B,) int64, which a data set that names its classes may number in its own
            way, truth for metrics that need it, boxes (B, N, 4) or masks
            (B, H, W). The data set's `ids`, one an image, name the images in the rows.
        methods: Names from `xcam.list_methods()` or method objects, or a dict that labels them.
            None for the method that a model was trained with, and Grad-CAM for other models. The
            name of the method that a model was trained with means the one that the model carries,
            with its parameters. Of several models, each is explained by the methods that need no
            head or the head that it carries.
        metrics: Names from `xcam.list_metrics()` or metric objects, or a dict that labels them.
        target: Explain the class that the model predicts, or the label.
        maps: Maps from elsewhere to score beside the methods: a folder (what `save_maps` wrote,
            explanations or `.npy` arrays by image id), a callable `(images, ids, target) -> maps`,
            or a dict that labels several.
        out: The folder of the rows; None for one that lives as long as the result. A folder that
            holds rows is resumed, or grows, if what it shares with the call is the same: the
            seed, target and precision; of each model by its name the weights, and of methods and
            metrics by their labels the settings; the images that are there, found by their ids
            wherever they are in the data now, with the labels that it lists, and the content,
            labels and truth of those that were the first and the last; of a folder of maps the
            files' names and sizes and the first one's content; of a callable its name, so that
            lambdas are refused. A metric that is added reads the maps that `save_maps` stored, in
            half precision, which may move a point of a removal curve by hundredths; without these,
            or where it reads the channels of pixels, the methods explain the images again.
        controls: Whether to score the controls, too.
        fraction: The share of the images to use, in (0, 1], drawn by `seed`.
        indices: Positions of the images to use; None for all.
        batch_size: Images through the model at a time; None chooses. Changes speed and memory, and
            the rows by rounding alone; but where values of a map nearly tie, their last bits rank
            the pixels, and a point of a removal curve may move by hundredths. An evaluation may
            resume with another one, so keep it for the same bits.
        precision: `"full"`, or `"bf16"`/`"fp16"` to run the models under autocast.
        progress: Whether to show a progress bar, which names model and method.
        seed: The seed of `fraction`, of the random control, and of methods and metrics that are
            given by name; an object keeps its own.
        save_maps: Whether to write the methods' maps, in half precision at their own resolution, to
            `out/maps/METHOD` (`out/maps/MODEL/METHOD` if there are several models, also once a
            second one is added). Maps that rows lack are made and written.
        dry_run: Measure a handful of images, for a minute at most, print passes and the estimated
            time, write nothing to `out`.

    Returns:
        The results; of the images that were measured for a dry run.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: An argument out of its range, a loader that shuffles, images of which the first
            16 cannot be read, labels or truth that are needed and missing, needed labels of
            classes that are not a model's, maps of such classes, or an `out` of another
            evaluation, each difference named: other weights under a name, other settings under a
            label, another seed, images that are missing or different.
        UnknownNameError: No such method or metric.
        NotFittedError: A trainable method whose head a model lacks, or has untrained.
        FileFormatError: A damaged file in `out`, or among the maps.
        OSError: `out` cannot be written to, or another process works there.
    """
    comparison = Comparison.of(
        model, methods, metrics, maps, target, controls, seed, batch_size, precision
    )
    if not comparison.metrics:
        raise ValueError("there are no metrics to score with; see xcam.list_metrics()")
    if out is not None:
        check_identity(comparison.maps)
    batches = Batches.of(data, indices, fraction, seed)
    processes = get_processes()
    if out is None and processes.count > 1 and not dry_run:
        raise ValueError(f"{processes.count} processes need a folder to share; give out=…")
    work = Work.of(comparison, batches, seed, save_maps and not dry_run)

    def run(folder: Path) -> None:
        if dry_run:
            _measure(work, Store(folder), processes)
        else:
            work.run(Store(folder), processes, progress)

    if dry_run or out is None:
        results = _run_in_temporary_folder(run, comparison)
    else:
        run(Path(out))
        results = Results(out, load_metrics(Path(out), comparison.metrics))
    for note in (*work.notes, *results.warnings):
        warn(note)
    return results


def _run_in_temporary_folder(run: Callable[[Path], None], comparison: Comparison) -> Results:
    """Return the results in a folder that lives as long as they do."""
    folder = Path(tempfile.mkdtemp(prefix="xcam-"))
    try:
        run(folder)
        results = Results(folder, comparison.metrics)
    except BaseException:
        shutil.rmtree(folder)
        raise
    weakref.finalize(results, shutil.rmtree, folder, ignore_errors=True)
    return results


def _measure(work: Work, store: Store, processes: Processes) -> None:
    """Write the rows of a handful of images and print what all of them would cost."""
    store.open(describe_work(work, store))
    rows, seconds = measure(work)
    store.write(0, rows)
    if processes.is_main:
        text = format_estimate(
            rows, seconds, len(work.batches), processes.count, list_unmeasured(work, rows)
        )
        sys.stdout.write(text + "\n")
