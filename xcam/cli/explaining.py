"""The command `explain`: write overlays of pictures, and their maps."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xcam.cli.application import app
from xcam.cli.literals import parse_value
from xcam.cli.nets import load_model
from xcam.cli.pictures import make_test_transform

if TYPE_CHECKING:
    from torch import Tensor

    from xcam.core import Explanation
    from xcam.models import Normalized

__all__ = ["explain"]


@app.command()
def explain(
    images: Annotated[list[Path], typer.Argument(help="Files of pictures.", show_default=False)],
    model: Annotated[
        str, typer.Option(help="provider:name, or a .safetensors file that xcam wrote.")
    ] = "torchvision:resnet50",
    weights: Annotated[
        str, typer.Option(help="A name that the provider knows, a file, or none.")
    ] = "DEFAULT",
    method: Annotated[
        str | None,
        typer.Option(
            help="A method; `xcam methods` lists them.", show_default="the model's own, or gradcam"
        ),
    ] = None,
    target: Annotated[
        str, typer.Option(help="Index of the class to explain, or 'predicted'.")
    ] = "predicted",
    contrast: Annotated[
        int | None,
        typer.Option(help="Index of a class: why the target rather than that one?"),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(help="Layer of the model to explain.", show_default="chosen by xcam"),
    ] = None,
    resize: Annotated[
        str | None,
        typer.Option(
            help="Resize the shorter side to this, bilinear, before cropping; 224x224: to a square."
        ),
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option(help="Parameter of the method, name=value; repeatable.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the overlays.")] = Path(),
    save: Annotated[
        Path | None, typer.Option(help="Also save the explanation to this .safetensors file.")
    ] = None,
    npy: Annotated[
        Path | None, typer.Option(help="Also write each map to this folder, as PICTURE.npy.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images through the model at a time.")
    ] = None,
    precision: Annotated[str, typer.Option(help="full, bf16 or fp16.")] = "full",
    device: Annotated[str, typer.Option(help="cpu, cuda …")] = "cpu",
) -> None:
    """Explain pictures and write overlays.

    Each overlay is a PNG: the picture under its map in color.
    """
    import xcam
    from xcam._explain.prepared import requested_method
    from xcam.registry import find_name

    params = _parse_parameters(param or []) | ({} if layer is None else {"layer": layer})
    aim = _parse_target(target)
    if save and not save.parent.is_dir():
        raise FileNotFoundError(f"no folder {str(save.parent)!r} for --save")
    net = load_model(model, weights, device)
    chosen = requested_method(net, method)
    name = find_name(chosen) if isinstance(chosen, str) else chosen.spec.name
    paths = _make_paths(images, out, name)
    batch = _read(images, net, resize).to(device)
    explanation = xcam.explain(  # type: ignore[call-overload, misc]  # checks the precision
        net,
        batch,
        aim,
        chosen,
        contrast=contrast,
        batch_size=batch_size,
        precision=precision,
        progress=sys.stderr.isatty(),
        **params,
    )
    typer.echo(repr(explanation.method))
    _write_overlays(explanation, batch, paths)
    for image, (source, path) in enumerate(zip(images, paths, strict=True)):
        typer.echo(f"{source}: {_describe_classes(explanation, image, net.categories)} -> {path}")
    if save:
        explanation.save(save)
        typer.echo(f"maps -> {save}")
    if npy:
        _write_arrays(explanation, images, npy)
        typer.echo(f"maps -> {npy}")


def _parse_parameters(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse `name=value` pairs; a value is a Python literal, or else a string."""
    params: dict[str, Any] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not (sign and name.isidentifier()):
            raise ValueError(f"--param takes name=value, such as n_masks=500, got {pair!r}")
        params[name] = parse_value(value)
    return params


def _parse_target(text: str) -> int | None:
    if text == "predicted":
        return None
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(
            f"--target takes the number of a class or 'predicted', got {text!r}"
        ) from error


def _make_paths(images: Sequence[Path], out: Path, method: str) -> list[Path]:
    """Return the file of each overlay, no two the same, and make the folder."""
    paths = [out / f"{image.stem}.{method}.png" for image in images]
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(
                f"two overlays would be written to {str(path)!r}: rename a picture, or call twice"
            )
    out.mkdir(parents=True, exist_ok=True)
    return paths


def _read(images: Sequence[Path], net: Normalized, resize: str | None) -> Tensor:
    import torch

    from xcam.imaging import read_image, read_pixels

    size = net.input_size
    if resize is None:
        pictures = [read_image(path, size) for path in images]
    elif size is None:
        raise ValueError("--resize needs a model with a fixed input size, and this one takes any")
    else:
        pictures = [make_test_transform(resize, size)(read_pixels(path)) for path in images]
    if len({picture.shape for picture in pictures}) > 1:
        raise ValueError(
            "the pictures differ in size and the model takes any size; explain them one by one"
        )
    return torch.stack(pictures)


def _write_overlays(explanation: Explanation, images: Tensor, paths: Sequence[Path]) -> None:
    from PIL import Image

    from xcam.runs import files

    pixels = (explanation.overlay(images) * 255).round().byte().movedim(1, -1).cpu().numpy()
    for picture, path in zip(pixels, paths, strict=True):
        content = io.BytesIO()
        Image.fromarray(picture).save(content, "PNG")
        files.write(path, content.getvalue())


def _write_arrays(explanation: Explanation, images: Sequence[Path], folder: Path) -> None:
    from xcam.explanations.folder import write_array

    for single, image in zip(explanation.maps, images, strict=True):
        write_array(folder / f"{image.stem}.npy", single)


def _describe_classes(explanation: Explanation, image: int, categories: Sequence[str]) -> str:
    """Return the three most probable classes, and the explained one if it is another."""
    if explanation.logits is None or explanation.target is None:
        return "no classes"
    logits = explanation.logits[image]
    odds = logits.softmax(0) if len(logits) > 1 else logits.sigmoid()
    best = odds.topk(min(3, len(odds))).indices.tolist()
    explained = int(explanation.target[image])

    def show(index: int) -> str:
        name = categories[index] if index < len(categories) else f"class {index}"
        return f"{name} {float(odds[index]):.1%}"

    listed = ", ".join(show(index) for index in best)
    if explained != best[0]:
        listed += f"; explained: {show(explained)}"
    if explanation.contrast is not None:
        listed += f"; rather than: {show(int(explanation.contrast[image]))}"
    return listed
