"""The commands `evaluate` and `score`: print the table of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from xcam.cli import evaluation_options as asked
from xcam.cli import options, tables
from xcam.cli.application import app
from xcam.cli.literals import parse_calls, parse_indices
from xcam.cli.nets import NetOptions, is_file, load_model
from xcam.cli.pictures import make_loader
from xcam.cli.reporting import describe_command
from xcam.sentences import pluralize

if TYPE_CHECKING:
    from torch.utils.data import DataLoader, Dataset

    from xcam.models import Normalized
    from xcam.results import Results
    from xcam.results.tables import Layout

__all__ = ["evaluate", "label_folders", "load_models", "parse_methods", "score"]


_MODEL, _WEIGHTS, _METRICS = ["torchvision:resnet50"], ["DEFAULT"], "insertion,deletion"


@app.command()
def evaluate(
    data: asked.Data,
    methods: options.Methods = None,
    metrics: options.Metrics = _METRICS,
    model: asked.Models = _MODEL,
    weights: asked.Weights = _WEIGHTS,
    settings: options.Settings = [],  # noqa: B006 - typer hands out a copy
    categories: options.Categories = None,
    mean: options.Mean = None,
    std: options.Std = None,
    maps: asked.Maps = [],  # noqa: B006
    target: asked.Target = "predicted",
    out: asked.Out = None,
    root: asked.Root = None,
    size: asked.Size = None,
    resize: options.Resize = None,
    controls: asked.Controls = True,
    fraction: asked.Fraction = 1.0,
    indices: asked.Indices = None,
    load: asked.Load = 16,
    workers: asked.Workers = 0,
    batch_size: options.BatchSize = None,
    precision: options.Precision = "full",
    device: options.Device = None,
    seed: asked.Seed = 0,
    save_maps: asked.SaveMaps = False,
    table: asked.Table = None,
    figure: asked.Figure = None,
    long: tables.Long = False,
    csv: tables.Csv = False,
    json: tables.Json = False,
    latex: tables.Latex = False,
    quiet: tables.Quiet = False,
    strict: tables.Strict = False,
    dry_run: asked.DryRun = False,
) -> None:
    """Score methods by metrics on a data set.

    Prints a line for each method and a column for each metric.

    The same command resumes an evaluation that was stopped or killed. `accelerate launch
    --multi_gpu --num_processes 2 -m xcam evaluate …` shares it among processes, also on CPUs.
    """
    from xcam._evaluate.comparison import resolve_methods
    from xcam.results import figures

    form = tables.Format(long, csv, json, latex)
    given = NetOptions(tuple(settings), categories, mean, std)
    nets = load_models(model, weights, device, given)
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
        if layout:
            typer.echo(layout.render(results))
        else:
            form.print(results)
        if figure:
            (net,) = nets.values()
            resolved = resolve_methods(net, chosen, seed).values()
            run: dict[str, Any] = {
                "target": target,
                "batch_size": batch_size,
                "precision": precision,
            }
            figures.draw_samples(net, loader.dataset, resolved, figure, **run)
            without = (
                f" (without {', '.join(label_folders(maps) or ())}: stored maps)" if maps else ""
            )
            typer.echo(f"figure -> {figure}{without}")

    _run(
        nets,
        loader,
        report,
        quiet,
        strict,
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
    maps: asked.Maps,
    data: asked.Data,
    metrics: options.Metrics = _METRICS,
    model: asked.Models = _MODEL,
    weights: asked.Weights = _WEIGHTS,
    settings: options.Settings = [],  # noqa: B006 - typer hands out a copy
    categories: options.Categories = None,
    mean: options.Mean = None,
    std: options.Std = None,
    target: asked.Target = "predicted",
    out: asked.Out = None,
    root: asked.Root = None,
    size: asked.Size = None,
    resize: options.Resize = None,
    controls: asked.Controls = True,
    fraction: asked.Fraction = 1.0,
    indices: asked.Indices = None,
    load: asked.Load = 16,
    workers: asked.Workers = 0,
    batch_size: options.BatchSize = None,
    precision: options.Precision = "full",
    device: options.Device = None,
    seed: asked.Seed = 0,
    long: tables.Long = False,
    csv: tables.Csv = False,
    json: tables.Json = False,
    latex: tables.Latex = False,
    quiet: tables.Quiet = False,
    strict: tables.Strict = False,
    dry_run: asked.DryRun = False,
) -> None:
    """Score maps that were made elsewhere.

    A map is `<id>.npy`, (h, w), where the id is the picture's path in the folder or the list, with
    or without its suffix; or what `xcam evaluate --save-maps` stored.
    """
    form = tables.Format(long, csv, json, latex)
    given = NetOptions(tuple(settings), categories, mean, std)
    nets = load_models(model, weights, device, given)
    _run(
        nets,
        make_loader(data, root, size, resize, nets, load, workers),
        form.print,
        quiet,
        strict,
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
    quiet: bool,
    strict: bool,
    **arguments: Any,  # noqa: ANN401
) -> None:
    """Evaluate, and report the results in the main process."""
    import xcam
    from xcam.results.page_facts import add_command
    from xcam.runs.processes import get_processes

    try:
        with tables.silence(quiet):
            results = xcam.evaluate(nets, loader, progress=not quiet, **arguments)
    except KeyboardInterrupt:
        resumable = arguments["out"] and not arguments["dry_run"]
        typer.echo("xcam: stopped" + ("; the same command resumes" if resumable else ""), err=True)
        raise typer.Exit(130) from None
    team = get_processes()
    if team.is_main and not arguments["dry_run"]:
        if arguments["out"]:
            add_command(arguments["out"], describe_command())
        report(results)
    team.disconnect()
    if strict:
        _refuse_errors(results)


def _refuse_errors(results: Results) -> None:
    """End the command if a row is an error."""
    errors = int(results.table(resamples=1)["errors"].sum())
    if errors:
        typer.echo(f"xcam: {pluralize(errors, 'row')} could not be scored", err=True)
        raise typer.Exit(1)


def load_models(
    models: Sequence[str],
    weights: Sequence[str],
    device: str | None,
    given: NetOptions = NetOptions(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Return the models by name, on a device, or on the launcher's.

    `mine=net.safetensors` is called mine; without a name, a model is called as it is given. Weights
    and options are those of nets by name.

    Raises:
        ValueError: Another number of weights than one, or one a model; or two of one name.
    """
    from xcam.runs.processes import get_processes

    if len(weights) not in (1, len(models)):
        raise ValueError(f"give --weights once, or one for each of the {len(models)} models")
    place = get_processes().device if device is None else device
    each = list(weights) * (len(models) if len(weights) == 1 else 1)
    named = [_split_name(text) for text in models]
    names = [name for name, _ in named]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"two models are called {twice!r}; name them, as in --model a={twice} --model b={twice}"
        )
    loaded = {}
    has_names = any(not is_file(model) for _, model in named)
    for (name, model), one in zip(named, each, strict=True):
        # Beside nets by name, their options say nothing of a file, which says all of itself.
        described = ("DEFAULT", NetOptions()) if is_file(model) and has_names else (one, given)
        loaded[name] = load_model(model, described[0], place, described[1])
    return loaded


def _split_name(text: str) -> tuple[str, str]:
    """Return the name of a model in tables, and what it is loaded from."""
    name, sign, model = text.partition("=")
    is_named = sign and name and model and not set(name) & set(":/\\")
    return (name, model) if is_named else (text, text)


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
