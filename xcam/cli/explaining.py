"""The command `explain`: write overlays of pictures, and their maps."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xcam.cli import options
from xcam.cli.application import app
from xcam.cli.layers import print_layers
from xcam.cli.mistakes import choose_mistakes, number_labels
from xcam.cli.nets import NetOptions, load_model
from xcam.cli.photos import (
    Photo,
    check_photos,
    find_photos,
    is_list,
    list_labeled,
    make_outputs,
)
from xcam.cli.reading import PictureReader
from xcam.cli.reporting import PageWriter, check_page
from xcam.cli.writing import ResultWriter

if TYPE_CHECKING:
    from torch import Tensor

    from xcam.core import Explanation, Method
    from xcam.models import Normalized

__all__ = ["explain"]

_Photos = Annotated[
    list[str] | None,
    typer.Argument(
        help="Files of pictures, folders of them, or patterns such as 'photos/**/*.jpg'; or one "
        "list, a .txt or .csv with a file and its label in each line.",
        show_default=False,
    ),
]
_Target = Annotated[
    str,
    typer.Option(
        help="The class to explain: its name or number, predicted, or label for the one that each "
        "picture is labeled with."
    ),
]
_Contrast = Annotated[
    str | None,
    typer.Option(
        help="Another class by name or number: explain why the target rather than that one."
    ),
]
_Worst = Annotated[
    int | None,
    typer.Option(
        help="Explain only so many pictures, those that the net gets wrong with the highest "
        "probability; labels are the folders' names or a list's."
    ),
]
_Root = Annotated[
    Path | None,
    typer.Option(help="Folder that the files of a list start from.", show_default="the list's"),
]
_Layers = Annotated[
    bool,
    typer.Option("--layers", help="Only list the layers of the net that a method can read."),
]
_Out = Annotated[Path, typer.Option(help="Folder for the overlays; it is made if need be.")]
_Caption = Annotated[
    bool, typer.Option(help="Write method, class and probability below each overlay.")
]
_Save = Annotated[
    Path | None,
    typer.Option(help="Also save the maps, with all that made them, to this .safetensors file."),
]
_Report = Annotated[
    Path | None,
    typer.Option(help="Also write a page of HTML with the pictures and overlays, to pass on."),
]
_Npy = Annotated[
    Path | None, typer.Option(help="Also write each map to this folder, as PICTURE.npy.")
]


@app.command()
def explain(
    images: _Photos = None,
    model: options.Model = "torchvision:resnet50",
    weights: options.Weights = "DEFAULT",
    settings: options.Settings = [],  # noqa: B006 - typer hands out a copy
    categories: options.Categories = None,
    mean: options.Mean = None,
    std: options.Std = None,
    methods: options.MethodsOrMethod = None,
    target: _Target = "predicted",
    contrast: _Contrast = None,
    worst: _Worst = None,
    root: _Root = None,
    layers: _Layers = False,
    resize: options.Resize = None,
    out: _Out = Path(),
    caption: _Caption = True,
    save: _Save = None,
    npy: _Npy = None,
    report: _Report = None,
    batch_size: options.BatchSize = None,
    precision: options.Precision = "full",
    device: options.Device = "cpu",
) -> None:
    """Explain pictures and write overlays.

    Each overlay is a PNG, PICTURE.METHOD.png: the picture at its own resolution under its map in
    color. Pictures that cannot be read are listed at the end, and the exit code is 1.
    """
    if not images and not layers:
        raise ValueError("give pictures to explain: files, folders or patterns")
    for option, file in (("--save", save), ("--out", out / "file"), ("--npy", npy)):
        _check_folder(option, file)
    check_page("--report", report)
    needs_labels = worst is not None or target == "label" or is_list(images or [])
    photos, classes = _find(images or [], root, needs_labels)
    total = len(photos)
    photos, failures = check_photos(photos) if images else ([], [])
    net = load_model(
        model, weights, device or "cpu", NetOptions(tuple(settings), categories, mean, std)
    )
    reader = PictureReader.create(net, resize, device or "cpu", failures)
    if layers:
        print_layers(net, reader.read_example(photos))
        return
    if needs_labels:
        photos = number_labels(photos, classes, net, reader.read_example(photos))
    if worst is not None:
        photos, wrong = choose_mistakes(reader.read_batches(photos), net, worst)
        typer.echo(f"{wrong} of {total} pictures are classified wrongly")
    chosen = _resolve_methods(net, methods)
    if save and len(chosen) > 1:
        raise ValueError(f"--save writes the maps of one method, got {', '.join(chosen)}")
    outputs = make_outputs(photos, out, _name_suffixes(chosen))
    several, page = len(chosen) > 1, PageWriter(report, len(photos))
    writer = ResultWriter(net.categories, caption, resize is not None, npy, several, page)
    written = dict(zip(photos, outputs, strict=True))
    run: dict[str, Any] = {
        "contrast": None if contrast is None else _parse_class(contrast),
        "batch_size": batch_size,
        "precision": precision,
        "progress": sys.stderr.isatty(),
    }
    for part, batch in reader.read_batches(photos):
        _explain_batch(net, part, batch, chosen, target, run, writer, written)
    if save and writer.parts:
        _save(writer.parts, save)
    if npy and writer.parts:
        typer.echo(f"maps -> {npy}")
    page.write()
    _report_failures(failures, total)


def _find(
    words: Sequence[str], root: Path | None, needs_labels: bool
) -> tuple[list[Photo], tuple[str, ...]]:
    """Return the pictures, and the names of the classes that their labels number."""
    if not needs_labels:
        return find_photos(words), ()
    data = list_labeled(words, root)
    rows = zip(data.paths, data.ids, data.labels, strict=True)
    photos = {path: Photo(path, _make_place(name), label) for path, name, label in rows}
    return list(photos.values()), data.classes


def _make_place(name: str) -> Path:
    """Return where results of a listed file go: never outside of the output folder."""
    path = Path(name)
    return Path(path.name) if path.is_absolute() or ".." in path.parts else path


def _resolve_methods(net: Normalized, text: str | None) -> dict[str, Method]:
    from xcam._evaluate.comparison import resolve_methods
    from xcam.cli.evaluating import parse_methods

    return resolve_methods(net, None if text is None else parse_methods(text), seed=0)


def _name_suffixes(methods: dict[str, Method]) -> list[str]:
    """Return what ends the names of each method's overlays: its name, numbered if it is twice."""
    names = [method.spec.name for method in methods.values()]
    return [
        f"{name}-{names[:place].count(name) + 1}" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]


def _parse_class(text: str) -> int | str | None:
    """Return the number of a class, or its name; None for the predicted one."""
    if text == "predicted":
        return None
    try:
        return int(text)
    except ValueError:
        return text


def _explain_batch(
    net: Normalized,
    photos: Sequence[Photo],
    batch: Tensor,
    methods: dict[str, Method],
    target: str,
    run: dict[str, Any],
    writer: ResultWriter,
    outputs: dict[Photo, list[Path]],
) -> None:
    """Explain a batch by each method, write its overlays and maps, and print a line a picture."""
    import xcam

    labels = [photo.label for photo in photos]
    aim: Any = labels if target == "label" else _parse_class(target)
    explanations = xcam.explain(net, batch, aim, methods, **run)
    writer.announce([one.method for one in explanations.values()])
    for place, photo in enumerate(photos):
        singles = [one[place] for one in explanations.values()]
        writer.write(photo, batch[place], singles, outputs[photo])
    writer.parts.extend(explanations.values())


def _save(parts: Sequence[Explanation], path: Path) -> None:
    from xcam.core import Explanation

    Explanation.cat(parts).save(path)
    typer.echo(f"maps -> {path}")


def _check_folder(option: str, file: Path | None) -> None:
    """Refuse a file in a folder that is not there, or a folder that is a file."""
    if file is None:
        return
    if option == "--save" and not file.parent.is_dir():
        raise FileNotFoundError(f"no folder {str(file.parent)!r} for --save")
    folder = file.parent if option == "--out" else file
    if option != "--save" and folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{str(folder)!r} for {option} exists, and is no folder")


def _report_failures(failures: Sequence[str], total: int) -> None:
    if failures:
        typer.echo(f"xcam: {len(failures)} of {total} pictures could not be read", err=True)
        for failure in failures:
            typer.echo(f"xcam: {failure}", err=True)
        raise typer.Exit(1)
