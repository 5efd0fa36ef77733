"""Options of `evaluate` and `score`, with their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xcam.cli import options

__all__ = [
    "Controls",
    "Data",
    "DryRun",
    "Figure",
    "Fraction",
    "Indices",
    "Load",
    "Maps",
    "Models",
    "Out",
    "Root",
    "SaveMaps",
    "Seed",
    "Size",
    "Table",
    "Target",
    "Weights",
    "Workers",
]

Data = Annotated[
    Path,
    typer.Option(
        help="A folder of pictures, in a folder for each class if they are labeled; a list with "
        "file, label and maybe truth in each line; or the name of a data set in --root, such as "
        "cifar10, whose test images are used."
    ),
]
Models = Annotated[
    list[str],
    typer.Option(
        help="A net: provider:name, or a .safetensors file that xcam wrote; name=… before it is "
        "its name in the table; may be repeated.",
        autocompletion=options.complete_models,
    ),
]
Weights = Annotated[
    list[str],
    typer.Option(
        help="Weights: DEFAULT for the provider's, a .pth or .safetensors file, or none; give it "
        "once, or once for each --model."
    ),
]
Table = Annotated[
    str | None,
    typer.Option(help="Print a paper's table in place of --metrics: lcam or castream."),
]
Figure = Annotated[
    Path | None,
    typer.Option(help="Also draw six pictures by each method, with AD and IC, to this file."),
]
Maps = Annotated[
    list[Path],
    typer.Option(help="A folder of maps by image id, to score as a method; may be repeated."),
]
Target = Annotated[
    str,
    typer.Option(help="The class to explain: predicted, or label for the one of the data."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder for the rows: the same command resumes what was stopped, and one with more "
        "methods, metrics, models or images adds what is new."
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(help="Folder that the files of a list start from, or that holds a data set."),
]
Size = Annotated[
    int | None,
    typer.Option(help="Side of the square pictures.", show_default="the model's, or 224"),
]
Controls = Annotated[
    bool,
    typer.Option(help="Also score what a method must beat: random, center_gaussian and sobel."),
]
Fraction = Annotated[
    float, typer.Option(help="The share of the pictures to use, drawn by --seed, such as 0.1.")
]
Indices = Annotated[
    str | None,
    typer.Option(help="Which pictures to use, by numbers from 0: 3,5,8, or a file of them."),
]
Load = Annotated[
    int, typer.Option(help="How many pictures are loaded, explained and stored together.")
]
Workers = Annotated[int, typer.Option(help="How many processes load pictures.")]
Seed = Annotated[
    int, typer.Option(help="Seed of methods and metrics that are random and name none.")
]
SaveMaps = Annotated[
    bool, typer.Option("--save-maps", help="Also store the maps in --out, to be scored again.")
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Measure a handful of pictures, print what all would take, and write nothing.",
    ),
]
