"""The command `cues`: whether maps find where two classes differ."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from xcam.cli import options
from xcam.cli.application import app
from xcam.cli.literals import parse_calls
from xcam.cli.nets import load_model

__all__ = ["cues"]


@app.command()
def cues(
    data: Annotated[Path, typer.Option(help="The folder CUB_200_2011, as it is unpacked.")],
    model: options.Model,
    weights: options.Weights = "DEFAULT",
    method: Annotated[
        str | None,
        typer.Option(
            help='A method with its settings, such as "calm(map=cls)".',
            show_default="the model's own, or gradcam",
        ),
    ] = None,
    scaling: Annotated[
        str, typer.Option(help="How maps are brought into [0, 1]: minmax, max or clip.")
    ] = "minmax",
    thresholds: Annotated[
        str, typer.Option(help="How the thresholds of the curve are spaced: even or log.")
    ] = "even",
    cumulative: Annotated[
        bool, typer.Option(help="Pool each pair with those before it, as CALM's code does.")
    ] = False,
    size: Annotated[
        int | None,
        typer.Option(help="Side of the square images, in pixels.", show_default="the model's"),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(help="How many images go through the net at a time.")
    ] = 32,
    csv: Annotated[
        Path | None, typer.Option(help="Also write a line for each pair of classes to this file.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute, such as cpu or cuda.")] = "cpu",
) -> None:
    """Measure whether maps find where two classes of CUB differ.

    Prints the mean of the pixel-wise average precision over the pairs of classes that differ in
    one, two and three parts of the bird, and over all pairs.
    """
    import xcam
    from xcam.metrics import PxAP
    from xcam.sentences import pluralize

    net = load_model(model, weights, device)
    name, settings = _parse_method(method)
    pairs = xcam.data.cub_cues(data, size=size or net.input_size or 224, categories=net.categories)
    chosen = PxAP(scaling=scaling, thresholds=thresholds)  # type: ignore[arg-type]  # checked there
    found = xcam.cue_localization(
        net,
        pairs,
        name,
        chosen,
        cumulative=cumulative,
        batch_size=batch_size,
        progress=sys.stderr.isatty(),
        **settings,
    )
    groups = [(pluralize(parts, "part"), group) for parts, group in found.groupby("parts")]
    for label, group in (*groups, ("all", found)):
        scores = group["pxap"].dropna()
        typer.echo(f"{label}: {scores.mean():.2f}, {pluralize(len(scores), 'pair')}")
    if csv:
        found.to_csv(csv, index=False)
        typer.echo(f"pairs -> {csv}")


def _parse_method(text: str | None) -> tuple[str | None, dict[str, Any]]:
    if text is None:
        return None, {}
    calls = parse_calls("--method", text, lambda name, settings: (name, settings))
    if len(calls) != 1:
        raise ValueError(f"--method takes one method, got {text!r}")
    return calls[0]
