"""The application that the commands belong to, and what it makes of mistakes."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from xcam.cli.printing import sentences

__all__ = ["app"]


class _Commands(TyperGroup):
    """The commands; what users get wrong is a sentence on stderr and exit code 2."""

    # Any: releases of typer differ in whose Context it is.
    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        from xcam.errors import XcamError

        try:
            with sentences():
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
