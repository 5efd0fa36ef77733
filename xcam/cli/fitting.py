"""The command `fit`: train a classifier by a recipe, and test it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from xcam.cli import options
from xcam.cli.application import app

__all__ = ["fit", "parse_changes"]

_ROWS = 21  # more classes than 20, and the mean, are not printed


@app.command()
def fit(
    recipe: Annotated[
        str,
        typer.Option(
            help="A name from `xcam recipes`, or a .toml file.",
            autocompletion=options.complete_recipes,
        ),
    ],
    root: Annotated[Path, typer.Option(help="Folder that holds the data set.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; the same command resumes it.")
    ] = None,
    changes: Annotated[
        list[str],
        typer.Option(
            "--set",
            help="A change of the recipe, such as epochs=2 or model.num_classes=5; repeatable.",
        ),
    ] = [],  # noqa: B006 - typer hands out a copy
    evaluate: Annotated[
        bool,
        typer.Option("--evaluate", help="Do not train; print the accuracy on the test images."),
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="File of the net that --evaluate measures.", show_default="best or last of --out"
        ),
    ] = None,
    board_path: Annotated[
        Path | None, typer.Option(help="Folder for curves that TensorBoard shows.")
    ] = None,
    workers: Annotated[int, typer.Option(help="How many processes load images.")] = 0,
    device: Annotated[
        str | None,
        typer.Option(
            help="Where to compute, such as cpu or cuda.",
            show_default="the launcher's, or the fastest",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Arithmetic of the net: full, or bf16 or fp16, which may be faster.",
            show_default="the recipe's, or full",
        ),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Download the data set if it is not there.")
    ] = False,
) -> None:
    """Train a classifier by a recipe.

    The same command resumes a training that was stopped or killed. `accelerate launch -m xcam
    fit …` shares it among processes. A value of --set is TOML, a bare word is text, and none
    removes the setting.
    """
    import xcam

    chosen = xcam.recipes.read(recipe, parse_changes(changes))
    settings: dict[str, Any] = {"device": device, "workers": workers, "download": download}
    if precision is not None:
        settings["precision"] = precision
    if evaluate:
        accuracy = xcam.recipes.accuracy(chosen, root, _find_weights(weights, out), **settings)
        _print_lines([accuracy.to_string(index=False)])
        return
    if weights or not out:
        raise ValueError("a training needs --out, its folder, and takes no --weights")
    settings |= {"board_path": board_path, "progress": True}
    _train(chosen, root, out, settings)


def parse_changes(pairs: Sequence[str]) -> dict[str, Any]:
    """Return what `--set name=value` changes in a recipe.

    Raises:
        ValueError: A pair without a name or a value.
    """
    from xcam.recipes.reading import parse_value

    changes = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not (sign and name.strip()):
            raise ValueError(f"--set takes name=value, such as epochs=2, got {pair!r}")
        changes[name.strip()] = parse_value(text.strip())
    return changes


def _find_weights(weights: Path | None, out: Path | None) -> Path:
    """Return the given file, or the best of a run, or else its last."""
    if weights:
        return weights
    if not out:
        raise ValueError("--evaluate needs --weights, or the --out of a run")
    for name in ("best", "last"):
        if (out / f"{name}.safetensors").is_file():
            return out / f"{name}.safetensors"
    raise FileNotFoundError(f"neither best.safetensors nor last.safetensors is in {str(out)!r}")


def _train(recipe: dict[str, Any], root: Path, out: Path, settings: dict[str, Any]) -> None:
    import xcam

    try:
        xcam.recipes.fit(recipe, root, out, **settings)
    except KeyboardInterrupt as stop:
        typer.echo(f"xcam: {str(stop) or 'stopped; the same command resumes'}", err=True)
        raise typer.Exit(130) from None
    _print_lines(_describe_outcome(out))


def _describe_outcome(out: Path) -> Iterator[str]:
    """Yield the accuracy on the test images, if there are any, and the file of the net."""
    import pandas as pd

    if (out / "test.csv").is_file():
        accuracy = pd.read_csv(out / "test.csv")
        if len(accuracy) <= _ROWS:
            yield accuracy.to_string(index=False)
        else:
            yield accuracy.tail(1).to_string(index=False)
            yield f"each class -> {out / 'test.csv'}"
    yield f"net -> {_find_weights(None, out)}"


def _print_lines(lines: Iterable[str]) -> None:
    """Print lines in the main process, and disconnect the processes that were launched."""
    from xcam.runs.processes import get_processes

    team = get_processes()
    if team.is_main:
        for line in lines:
            typer.echo(line)
    team.disconnect()
