"""The commands `evaluate` and `score`: print the table of an evaluation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xcam.cli import options
from xcam.cli.application import app
from xcam.cli.literals import parse_calls, parse_indices
from xcam.cli.nets import load_model
from xcam.cli.pictures import make_loader

if TYPE_CHECKING:
    from torch.utils.data import DataLoader, Dataset

    from xcam.models import Normalized
    from xcam.results import Results
    from xcam.results.tables import Layout

__all__ = ["evaluate", "label_folders", "load_models", "parse_methods", "score"]


_Data = Annotated[
    Path,
    typer.Option(
        help="A folder of pictures; a list with file, label, truth in each line; or the name of a "
        "data set in --root, such as cifar10, whose test images are used."
    ),
]
_Models = Annotated[
    list[str],
    typer.Option(help="provider:name, or a .safetensors file that xcam wrote; repeatable."),
]
_Weights = Annotated[
    list[str],
    typer.Option(
        help="A name that the provider knows, a file, or none; once, or for each --model."
    ),
]
_Table = Annotated[
    str | None,
    typer.Option(help="Print a paper's table instead of --metrics: lcam or castream."),
]
_Figure = Annotated[
    Path | None,
    typer.Option(help="Also draw six pictures by each method, with AD and IC, to this file."),
]
_Maps = Annotated[list[Path], typer.Option(help="A folder of maps by image id; repeatable.")]
_Target = Annotated[str, typer.Option(help="The class to explain: predicted or label.")]
_Out = Annotated[
    Path | None, typer.Option(help="Folder for the rows; the same command resumes it.")
]
_Root = Annotated[
    Path | None, typer.Option(help="Folder of the files of a list, or of a data set.")
]
_Size = Annotated[
    int | None, typer.Option(help="Side of the pictures.", show_default="the model's, or 224")
]
_Controls = Annotated[bool, typer.Option(help="Also evaluate random, center_gaussian and sobel.")]
_Fraction = Annotated[float, typer.Option(help="Fraction of the pictures to use.")]
_Indices = Annotated[
    str | None,
    typer.Option(help="Pictures to use, numbers from 0: 3,5,8, or a file of them."),
]
_Load = Annotated[int, typer.Option(help="Pictures loaded, explained and stored together.")]
_Workers = Annotated[int, typer.Option(help="Processes that load pictures.")]
_Seed = Annotated[int, typer.Option(help="Seed for methods and metrics without their own.")]
_DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only print what would be done and estimate the time.")
]

_MODEL, _WEIGHTS, _METRICS = ["torchvision:resnet50"], ["DEFAULT"], "insertion,deletion"


@app.command()
def evaluate(
    data: _Data,
    methods: options.Methods = None,
    metrics: options.Metrics = _METRICS,
    model: _Models = _MODEL,
    weights: _Weights = _WEIGHTS,
    maps: _Maps = [],  # noqa: B006 - typer hands out a copy
    target: _Target = "predicted",
    out: _Out = None,
    root: _Root = None,
    size: _Size = None,
    resize: options.Resize = None,
    controls: _Controls = True,
    fraction: _Fraction = 1.0,
    indices: _Indices = None,
    load: _Load = 16,
    workers: _Workers = 0,
    batch_size: options.BatchSize = None,
    precision: options.Precision = "full",
    device: options.Device = None,
    seed: _Seed = 0,
    save_maps: Annotated[
        bool, typer.Option("--save-maps", help="Also store the maps in --out.")
    ] = False,
    table: _Table = None,
    figure: _Figure = None,
    dry_run: _DryRun = False,
) -> None:
    """Score methods by metrics on a data set.

    The same command resumes an evaluation that was stopped or killed. `accelerate launch
    --multi_gpu --num_processes 2 -m xcam evaluate …` shares it among processes, also on CPUs.
    """
    from xcam._evaluate.comparison import resolve_methods
    from xcam.results import figures

    nets = load_models(model, weights, device)
    loader = make_loader(data, root, size, resize, nets, load, workers)
    chosen = None if methods is None else parse_methods(methods)
    if figure and len(nets) > 1:
        raise ValueError(f"--figure draws one model, got {len(nets)}")
    if figure and not figure.parent.is_dir():
        raise FileNotFoundError(f"no folder {str(figure.parent)!r} for --figure")
    if table and metrics != _METRICS:
        raise ValueError("--table has its own metrics; leave --metrics out")
    layout = None if table is None else _make_layout(table, nets, loader.dataset)

    def report(results: Results) -> None:
        typer.echo(layout.render(results) if layout else str(results))
        if figure:
            (net,) = nets.values()
            resolved = resolve_methods(net, chosen, seed).values()
            settings: dict[str, Any] = {
                "target": target,
                "batch_size": batch_size,
                "precision": precision,
            }
            figures.draw_samples(net, loader.dataset, resolved, figure, **settings)
            without = (
                f" (without {', '.join(label_folders(maps) or ())}: stored maps)" if maps else ""
            )
            typer.echo(f"figure -> {figure}{without}")

    _run(
        nets,
        loader,
        report,
        methods=chosen,
        metrics=layout.metrics if layout else _parse_metrics(metrics, seed),
        maps=label_folders(maps),
        target=target,
        out=out,
        controls=controls,
        fraction=fraction,
        indices=None if indices is None else parse_indices(indices),
        batch_size=batch_size,
        precision=precision,
        seed=seed,
        save_maps=save_maps,
        dry_run=dry_run,
    )


@app.command()
def score(
    maps: _Maps,
    data: _Data,
    metrics: options.Metrics = _METRICS,
    model: _Models = _MODEL,
    weights: _Weights = _WEIGHTS,
    target: _Target = "predicted",
    out: _Out = None,
    root: _Root = None,
    size: _Size = None,
    resize: options.Resize = None,
    controls: _Controls = True,
    fraction: _Fraction = 1.0,
    indices: _Indices = None,
    load: _Load = 16,
    workers: _Workers = 0,
    batch_size: options.BatchSize = None,
    precision: options.Precision = "full",
    device: options.Device = None,
    seed: _Seed = 0,
    dry_run: _DryRun = False,
) -> None:
    """Score maps that were made elsewhere.

    A map is `<id>.npy`, (h, w), where the id is the picture's path in the folder or the list, with
    or without its suffix; or what `xcam evaluate --save-maps` stored.
    """
    nets = load_models(model, weights, device)
    _run(
        nets,
        make_loader(data, root, size, resize, nets, load, workers),
        lambda results: typer.echo(str(results)),
        methods=(),
        metrics=_parse_metrics(metrics, seed),
        maps=label_folders(maps),
        target=target,
        out=out,
        controls=controls,
        fraction=fraction,
        indices=None if indices is None else parse_indices(indices),
        batch_size=batch_size,
        precision=precision,
        seed=seed,
        dry_run=dry_run,
    )


def _run(
    nets: dict[str, Normalized],
    loader: DataLoader[Any],
    report: Callable[[Results], None],
    **arguments: Any,  # noqa: ANN401
) -> None:
    """Evaluate, and report the results in the main process."""
    import xcam
    from xcam.runs.processes import get_processes

    try:
        results = xcam.evaluate(nets, loader, progress=sys.stderr.isatty(), **arguments)
    except KeyboardInterrupt:
        resumable = arguments["out"] and not arguments["dry_run"]
        typer.echo("xcam: stopped" + ("; the same command resumes" if resumable else ""), err=True)
        raise typer.Exit(130) from None
    team = get_processes()
    if team.is_main and not arguments["dry_run"]:
        report(results)
    team.disconnect()


def load_models(
    models: Sequence[str], weights: Sequence[str], device: str | None
) -> dict[str, Any]:
    """Return the models by name, on a device, or on the launcher's.

    Raises:
        ValueError: Another number of weights than one, or one a model.
    """
    from xcam.runs.processes import get_processes

    if len(weights) not in (1, len(models)):
        raise ValueError(f"give --weights once, or one for each of the {len(models)} models")
    place = get_processes().device if device is None else device
    each = list(weights) * (len(models) if len(weights) == 1 else 1)
    return {name: load_model(name, one, place) for name, one in zip(models, each, strict=True)}


def _make_layout(name: str, nets: Mapping[str, Normalized], data: Dataset[Any]) -> Layout:
    """Return the layout of a table, made for the model with the fewest classes."""
    from xcam._evaluate.classes import count_classes
    from xcam.results.tables import LAYOUTS

    if name not in LAYOUTS:
        raise ValueError(f"--table takes {', '.join(LAYOUTS)}, got {name!r}")
    first = data[0][0][None]
    return LAYOUTS[name](min(count_classes(net, first) for net in nets.values()))


def label_folders(maps: Sequence[Path]) -> dict[str, Path] | None:
    """Return folders of maps by their names; None for none.

    Raises:
        ValueError: Two have the same name.
    """
    labels = {path.resolve().name: path for path in maps}
    if len(labels) < len(maps):
        raise ValueError("two folders of maps have the same name, which is their name in the table")
    return labels or None


def parse_methods(text: str) -> list[Any]:
    """Return the methods that `--methods` names, with their settings."""
    from xcam._evaluate.comparison import NamedArguments

    return parse_calls("--methods", text, NamedArguments)


def _parse_metrics(text: str, seed: int) -> list[Any]:
    from xcam._evaluate.comparison import seed_arguments
    from xcam.registry import get_metric

    def make(name: str, settings: dict[str, Any]) -> Any:  # noqa: ANN401
        return get_metric(name)(**(seed_arguments(get_metric(name), seed) | settings))

    return parse_calls("--metrics", text, make)
