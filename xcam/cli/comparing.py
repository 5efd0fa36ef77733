"""The command `stability`: two folders of maps in, how far they agree out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xcam.cli.application import app

__all__ = ["stability"]

_Folder = Annotated[
    Path, typer.Argument(help="Maps by image name, .npy or of `evaluate`.", show_default=False)
]


@app.command()
def stability(
    a: _Folder,
    b: _Folder,
    threshold: Annotated[
        float, typer.Option(help="What is high: above this, 0 to 255 and no share of 1.")
    ] = 100,
    mode: Annotated[str, typer.Option(help="pixel, or row: as LFI-CAM's code.")] = "pixel",
    size: Annotated[
        int | None, typer.Option(help="Side to compare at: the images'.", show_default="the maps'")
    ] = None,
) -> None:
    """Print how far two models look at the same pixels.

    It is the IoU of their maps above the threshold, the mean over images. Maps are written by
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
            "xcam: rows without any high pixel count as 1; to be compared with LFI-CAM's own "
            "numbers alone",
            err=True,
        )
