"""The application that the commands belong to, and how it reports errors."""

from __future__ import annotations

import os
import select
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from xcam.cli.printing import print_warnings, tolerate_encoding

__all__ = ["app"]


class _Commands(TyperGroup):
    """The commands; an error of the user is a sentence on stderr and exit code 2."""

    def main(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as typer has it
        tolerate_encoding()
        try:
            return super().main(*args, **kwargs)
        except SystemExit as end:
            if isinstance(end.__context__, BrokenPipeError):
                raise SystemExit(0) from None  # whoever reads has seen enough: `xcam … | head`
            raise

    # Any: releases of typer differ in the class of Context.
    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        from xcam.errors import XcamError

        try:
            with print_warnings():
                return super().invoke(ctx)
        except BrokenPipeError as error:
            if _is_stdout_closed():
                raise
            typer.echo(f"xcam: {error}", err=True)
            raise typer.Exit(2) from error
        except (XcamError, ImportError, OSError, TypeError, ValueError) as error:
            if ctx.params.get("traceback"):
                raise
            typer.echo(f"xcam: {error}", err=True)
            raise typer.Exit(2) from error


def _is_stdout_closed() -> bool:
    """Return whether nobody reads the output any more; then make what is left go nowhere."""
    if not hasattr(select, "poll"):  # Windows
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    closed = any(event & select.POLLERR for _, event in poll.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return closed


app = typer.Typer(
    name="xcam",
    cls=_Commands,
    no_args_is_help=True,
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
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show the traceback of an error.")
    ] = False,
) -> None:
    """Explain image classifiers: which pixels support a class?"""
