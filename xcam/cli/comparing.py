"""The commands `compare`, of methods or models, and `stability`, of maps in two folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xcam.cli import tables
from xcam.cli.application import app

__all__ = ["compare", "stability"]

_Folder = Annotated[
    Path,
    typer.Argument(
        help="Folder of maps by image name: .npy files, or those that `evaluate` stored.",
        show_default=False,
    ),
]


@app.command()
def compare(
    folder: Annotated[
        Path, typer.Argument(help="Folder of an evaluation, its --out.", show_default=False)
    ],
    reference: Annotated[
        str | None,
        typer.Option(
            help="Compare all others with this method, or model.", show_default="all pairs"
        ),
    ] = None,
    by: Annotated[
        str, typer.Option(help="What is compared: method, on the same net, or model.")
    ] = "method",
    csv: tables.Csv = False,
    json: tables.Json = False,
) -> None:
    """Compare the methods, or the models, of an evaluation on the same images.

    Prints a line for each metric and pair: the difference with its 95 % interval, the p-value
    corrected for all lines (Holm), and the better one if it is below 0.05.
    """
    from xcam.results import Results

    if csv and json:
        raise ValueError("give one of --csv, --json")
    found = Results(folder).compare(reference=reference, by=by)  # type: ignore[arg-type]  # checked
    if csv or json:
        tables.print_frame(found, csv)
    else:
        typer.echo(found.to_string(index=False, float_format="{:.4f}".format))


@app.command()
def stability(
    a: _Folder,
    b: _Folder,
    threshold: Annotated[
        float, typer.Option(help="Values above this are high; maps are scaled to 0 to 255.")
    ] = 100,
    mode: Annotated[
        str, typer.Option(help="Compare by pixel or, as LFI-CAM's code does, by row.")
    ] = "pixel",
    size: Annotated[
        int | None,
        typer.Option(help="Side to resize maps to, such as the images'.", show_default="the maps'"),
    ] = None,
) -> None:
    """Compare the maps of two models.

    Prints the IoU of the pixels above the threshold, the mean over images. Maps are written by
    `xcam explain … --npy FOLDER`, at the images' size, or by `xcam evaluate … --save-maps`, at the
    maps' own: then give --size to compare them at the images'.
    """
    import xcam
    from xcam.results.bootstrap import Sample, estimate

    found = xcam.stability_iou(a, b, threshold, mode, size)  # type: ignore[arg-type]  # checked
    (mean,) = estimate([Sample.of(found)], lambda values: values)
    low, high = mean.interval()
    several = len(found) > 1
    spread = f"95 % interval {low:.4f} to {high:.4f}" if several else "no interval"
    typer.echo(
        f"IoU {mean.value:.4f}, {spread}, of {len(found)} image{'s' * several}, above "
        f"{threshold:g} of 255"
    )
    if mode == "row":
        typer.echo(
            "xcam: rows without any high pixel count as 1; compare this with LFI-CAM's own numbers "
            "only",
            err=True,
        )
