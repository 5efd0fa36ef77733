"""The command line: it parses, calls xcam, prints.

Everything that imports torch is imported inside a command, so that `xcam --help` answers at once.
"""

from __future__ import annotations

import ast
import io
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from torch import Tensor

    from xcam.core import Explanation
    from xcam.models import Normalized

__all__ = ["app"]


class _Commands(TyperGroup):
    """The commands; what users get wrong is a sentence on stderr and exit code 2."""

    # Any: releases of typer differ in whose Context it is.
    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        from xcam.errors import XcamError

        try:
            with _sentences():
                return super().invoke(ctx)
        except (XcamError, ImportError, OSError, TypeError, ValueError) as error:
            if ctx.params.get("traceback"):
                raise
            typer.echo(f"xcam: {error}", err=True)
            raise typer.Exit(2) from error


app = typer.Typer(
    name="xcam",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from xcam import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print it.", callback=_print_version, is_eager=True)
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error comes from.")
    ] = False,
) -> None:
    """Explain image classifiers: which pixels speak for a class?"""


@app.command()
def methods() -> None:
    """List the methods."""
    from xcam.registry import installed

    registry = installed()
    specs = [cls.spec for _, cls in sorted(registry.methods.items())]
    rows = [(s.name, s.title, s.family, s.cost, registry.owners[s.name]) for s in specs]
    _table(("name", "title", "family", "cost", "from"), rows)


@app.command()
def metrics(
    long: Annotated[bool, typer.Option("--long", help="Also formula, source, settings.")] = False,
) -> None:
    """List the metrics."""
    from xcam.registry import installed

    registry = installed()
    classes = [cls for _, cls in sorted(registry.metrics.items())]
    header: tuple[str, ...] = ("name", "title", "better", "range", "truth", "cost", "from")
    rows: list[tuple[str, ...]] = [
        (s.name, s.title, s.direction, s.interval, s.truth, s.cost, registry.owners[s.name])
        for s in (cls.spec for cls in classes)
    ]
    if long:
        header += ("formula", "source", "settings")
        rows = [
            (*row, cls.spec.formula, cls.spec.paper, repr(cls()))
            for row, cls in zip(rows, classes, strict=True)
        ]
    _table(header, rows)


@app.command()
def plugins() -> None:
    """List the plugins, and why any failed."""
    from xcam.registry import installed

    registry = installed()
    brought = dict.fromkeys(registry.plugins(), 0)
    for owner in registry.owners.values():
        brought[owner] += 1
    rows = [(owner, f"brings {count}") for owner, count in brought.items()]
    rows += [(owner, f"failed: {why}") for owner, why in registry.failures.items()]
    _table(("plugin", "state"), rows)


@app.command()
def check(name: Annotated[str, typer.Argument(help="A method or a metric.")]) -> None:
    """Test a method or metric against the contract.

    The exit code is 1 if it breaks one.
    """
    from xcam.registry import list_metrics
    from xcam.testing import check_method, check_metric

    results = check_metric(name) if name in list_metrics() else check_method(name)
    _table(("check", "outcome", ""), [(r.check, r.outcome, r.message) for r in results])
    if any(result.outcome == "broken" for result in results):
        raise typer.Exit(1)


@app.command()
def explain(
    images: Annotated[list[Path], typer.Argument(help="Pictures.", show_default=False)],
    model: Annotated[str, typer.Option(help="As provider:name.")] = "torchvision:resnet50",
    weights: Annotated[
        str, typer.Option(help="A name of the provider's, a file, or 'none'.")
    ] = "DEFAULT",
    method: Annotated[str, typer.Option(help="See `xcam methods`.")] = "gradcam",
    target: Annotated[str, typer.Option(help="The number of a class.")] = "predicted",
    layer: Annotated[str | None, typer.Option(help="Of the model.", show_default="choose")] = None,
    param: Annotated[
        list[str] | None, typer.Option(help="Of the method: name=value; may be repeated.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the overlays.")] = Path(),
    save: Annotated[Path | None, typer.Option(help="Also write the maps (.safetensors).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images at a time.")] = None,
    precision: Annotated[str, typer.Option(help="full, bf16 or fp16.")] = "full",
    device: Annotated[str, typer.Option(help="cpu, cuda …")] = "cpu",
) -> None:
    """Explain pictures; write overlays.

    Each picture gets a PNG of its map in colour over it.
    """
    import xcam

    params = _parameters(param or []) | ({} if layer is None else {"layer": layer})
    aim = _target(target)
    paths = _outputs(images, out, method)
    if save and not save.parent.is_dir():
        raise FileNotFoundError(f"no folder {str(save.parent)!r} for --save")
    net = _moved(xcam.models.load(model, None if weights == "none" else weights), device)
    batch = _read(images, net).to(device)
    explanation = xcam.explain(
        net,
        batch,
        aim,
        method,
        batch_size,
        precision=precision,  # type: ignore[arg-type]  # checked by explain
        progress=sys.stderr.isatty(),
        **params,
    )
    typer.echo(repr(explanation.method))
    _write_overlays(explanation, batch, paths)
    for image, (source, path) in enumerate(zip(images, paths, strict=True)):
        typer.echo(f"{source}: {_classes(explanation, image, net.categories)} -> {path}")
    if save:
        explanation.save(save)
        typer.echo(f"maps -> {save}")


@contextmanager
def _sentences() -> Iterator[None]:
    """Warnings of ours as plain lines on stderr, each once."""
    from xcam.errors import XcamWarning

    show, said = warnings.showwarning, set[str]()

    def one_line(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, XcamWarning):
            show(message, category, filename, lineno, file, line)
        elif str(message) not in said:
            said.add(str(message))
            typer.echo(f"xcam: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", XcamWarning)
        warnings.showwarning = one_line
        yield


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints left-aligned columns, the last one without trailing blanks."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def _parameters(pairs: Sequence[str]) -> dict[str, Any]:
    """`name=value` pairs; a value is a Python literal, or else a string."""
    params: dict[str, Any] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not (sign and name.isidentifier()):
            raise ValueError(f"--param takes name=value, such as n_masks=500, got {pair!r}")
        try:
            params[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            params[name] = value
    return params


def _target(text: str) -> int | None:
    if text == "predicted":
        return None
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(
            f"--target takes the number of a class or 'predicted', got {text!r}"
        ) from error


def _moved(net: Normalized, device: str) -> Normalized:
    try:
        return net.to(device)
    except (AssertionError, RuntimeError) as error:  # torch without CUDA asserts that it has it
        raise ValueError(f"--device {device!r} cannot be used: {error}") from error


def _outputs(images: Sequence[Path], out: Path, method: str) -> list[Path]:
    """Where each overlay goes: no two to the same file, and the folder is there."""
    paths = [out / f"{image.stem}.{method}.png" for image in images]
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"two pictures would go to {str(path)!r}: rename one, or call twice")
    out.mkdir(parents=True, exist_ok=True)
    return paths


def _read(images: Sequence[Path], net: Normalized) -> Tensor:
    import torch

    from xcam.imaging import read_image

    pictures = [read_image(path, net.input_size) for path in images]
    if len({picture.shape for picture in pictures}) > 1:
        raise ValueError("the pictures differ in size and the model does not name one; call each")
    return torch.stack(pictures)


def _write_overlays(explanation: Explanation, images: Tensor, paths: Sequence[Path]) -> None:
    from PIL import Image

    from xcam import files

    pixels = (explanation.overlay(images) * 255).round().byte().movedim(1, -1).cpu().numpy()
    for picture, path in zip(pixels, paths, strict=True):
        content = io.BytesIO()
        Image.fromarray(picture).save(content, "PNG")
        files.write(path, content.getvalue())


def _classes(explanation: Explanation, image: int, categories: Sequence[str]) -> str:
    """The three most probable classes, and the explained one if it is another."""
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
    return listed if explained == best[0] else f"{listed}; explained: {show(explained)}"
