"""The command `roar`: remove what maps mark, and retrain."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from xcam.cli import options
from xcam.cli.application import app
from xcam.cli.evaluating import label_folders, load_models, parse_methods
from xcam.cli.fitting import parse_changes

__all__ = ["roar"]

_MODES = {"remove": "remove", "keep": "keep", "both": ("remove", "keep")}


@app.command()
def roar(
    recipe: Annotated[
        str,
        typer.Option(
            help="A name from `xcam recipes`, or a .toml file: says net, data and training.",
            autocompletion=options.complete_recipes,
        ),
    ],
    root: Annotated[Path, typer.Option(help="Folder that holds the data set.")],
    model: Annotated[
        list[str],
        typer.Option(
            help="The trained net to explain, a .safetensors file of xcam's; may be repeated."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run; the same command resumes it.")],
    methods: options.Methods = None,
    maps: Annotated[
        list[Path],
        typer.Option(help="A folder of maps by image id, to use as a method; may be repeated."),
    ] = [],  # noqa: B006 - typer hands out a copy
    changes: Annotated[
        list[str],
        typer.Option(
            "--set", help="A change of the recipe, name=value, such as epochs=2; may be repeated."
        ),
    ] = [],  # noqa: B006
    mode: Annotated[
        str,
        typer.Option(help="What to do with the highest pixels: remove (ROAR), keep (KAR) or both."),
    ] = "remove",
    preset: Annotated[
        str | None, typer.Option(help="Settings of a published experiment: paper or whitebox.")
    ] = None,
    fractions: Annotated[
        str | None,
        typer.Option(help="Fractions of the pixels, such as 0.1,0.5.", show_default="the preset's"),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            help="How many trainings, by other seeds, give a point.",
            show_default="the preset's, or 5",
        ),
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="What is removed: a pixel, or an element of one channel.")
    ] = None,
    fill: Annotated[
        str | None, typer.Option(help="What takes its place: channel_mean, zero or linear.")
    ] = None,
    rank: Annotated[
        str | None, typer.Option(help="How values of maps are ordered: signed, abs or square.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The class that is explained: predicted or label.")
    ] = None,
    mask_eval: Annotated[
        bool | None, typer.Option(help="Change validation and test images, too.")
    ] = None,
    controls: Annotated[
        bool, typer.Option(help="Also retrain with what a method must beat: random and sobel maps.")
    ] = True,
    blurred: Annotated[
        bool, typer.Option("--blurred", help="Also retrain with each method's maps blurred.")
    ] = False,
    parallel: Annotated[
        int | None, typer.Option(help="How many nets are trained at once, as one stacked net.")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="Do only the i-th of n parts, written i/n, for arrays of jobs."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of the first repeat, from which the others follow.",
            show_default="the recipe's",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Where to compute, such as cpu or cuda.",
            show_default="the launcher's, or the fastest",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="How many processes load images.")] = 0,
    csv: Annotated[
        Path | None, typer.Option(help="Also write a line for each training to this file.")
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="Also draw the curves to this file.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the trainings and the estimated time.")
    ] = False,
) -> None:
    """Score maps by retraining a recipe's net without what they mark (ROAR, KAR).

    The number of trainings and the estimated time are printed first. The same command resumes a
    run that was stopped or killed, and one with more methods, fractions or repeats adds to it.
    `accelerate launch --multi_gpu --num_processes 2 -m xcam roar …` shares it among processes,
    also on CPUs.
    """
    import xcam
    from xcam.runs.processes import get_processes

    if mode not in _MODES:
        raise ValueError(f"--mode takes {', '.join(_MODES)}, got {mode!r}")
    given: dict[str, Any] = {
        "preset": preset,
        "fractions": None if fractions is None else _parse_fractions(fractions),
        "repeats": repeats,
        "unit": unit,
        "fill": fill,
        "rank": rank,
        "target": target,
        "mask_eval": mask_eval,
        "parallel": parallel,
        "shard": shard,
        "seed": seed,
        "device": device,
    }
    chosen = () if methods is None and maps else methods and parse_methods(methods)
    team = get_processes()
    try:
        results = xcam.recipes.roar(
            xcam.recipes.read(recipe, parse_changes(changes)),
            root,
            _name_by_place(load_models(model, ["DEFAULT"], device), out),
            chosen,
            fit={"workers": workers} if workers else {},
            maps=label_folders(maps),
            mode=_MODES[mode],
            controls=controls,
            blurred=blurred,
            out=out,
            dry_run=dry_run,
            progress=True,
            **given,
        )
    except KeyboardInterrupt:
        typer.echo("xcam: stopped; the same command resumes", err=True)
        raise typer.Exit(130) from None
    if team.is_main and not dry_run:
        typer.echo(str(results))
        if csv:
            results.to_csv(csv)
            typer.echo(f"trainings -> {csv}")
        if figure:
            results.plot(figure)
            typer.echo(f"figure -> {figure}")
    team.disconnect()


def _name_by_place(models: dict[str, Any], out: Path) -> dict[str, Any]:
    """Return models by the same name wherever and however their files' paths are typed.

    A file is called by its path from the innermost folder that holds both it and the run.

    Raises:
        ValueError: Two have the same name.
    """
    named: dict[str, Any] = {}
    for typed, net in models.items():
        name, path = typed, Path(typed).resolve()
        if path.is_file():
            whole = Path(os.path.commonpath([path, out.resolve()]))
            name = path.relative_to(whole).as_posix()
        if name in named:
            raise ValueError(f"--model gives two models called {name!r}; give each once")
        named[name] = net
    return named


def _parse_fractions(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"--fractions takes numbers, such as 0.1,0.5, got {text!r}") from error
