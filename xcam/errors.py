"""The exceptions that somebody may want to catch by name."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Collection
from pathlib import Path
from types import FrameType

__all__ = [
    "DivergenceError",
    "FileFormatError",
    "LayerError",
    "ModelOutputError",
    "NotFittedError",
    "PluginWarning",
    "UnknownNameError",
    "XcamError",
    "XcamWarning",
    "unknown",
    "warn",
]

_PACKAGE = str(Path(__file__).parent / "_").removesuffix("_")


class XcamError(Exception):
    """Base of every error that only xcam raises."""


class UnknownNameError(XcamError, KeyError):
    """No method, metric or layer has this name; the message lists the nearest ones."""

    def __str__(self) -> str:
        """Return the sentence itself: `KeyError` would print its repr."""
        return str(self.args[0]) if self.args else ""


class LayerError(XcamError, ValueError):
    """The chosen layer gives nothing that can be read as a map."""


class ModelOutputError(XcamError, ValueError):
    """The model's output is not one finite (B, K) tensor of scores."""


class NotFittedError(XcamError, ValueError, AttributeError):
    """A trainable method was asked for maps before its head was trained."""


class FileFormatError(XcamError, ValueError):
    """A file is damaged, truncated, or was not written by xcam."""


class DivergenceError(XcamError, ArithmeticError):
    """The loss of a training is no longer finite."""


class XcamWarning(UserWarning):
    """Base of xcam's warnings."""


class PluginWarning(XcamWarning):
    """A plugin failed to load, or brings a name that is taken."""


def unknown(what: str, name: str, known: Collection[str]) -> UnknownNameError:
    """Return the error for an unknown name, which lists the nearest known names, or some."""
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    if near:
        return UnknownNameError(f"no {what} is called {name!r}; the nearest are {', '.join(near)}")
    some = ", ".join(list(known)[:8]) if known else "none"
    more = f" and {len(known) - 8} more" if len(known) > 8 else ""
    return UnknownNameError(f"no {what} is called {name!r}; there are {some}{more}")


def warn(sentence: str, category: type[XcamWarning] = XcamWarning) -> None:
    """Warn at the line that called xcam, however many frames of xcam, torch and others lie between.

    It is the caller of the outermost frame of xcam: `skip_file_prefixes` of `warnings.warn` needs
    Python 3.12, and would stop at torch where a hook of ours warns.
    """
    caller = sys._getframe(1)
    frame: FrameType | None = caller
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PACKAGE):
            caller = frame.f_back or frame
        frame = frame.f_back
    warnings.warn_explicit(
        sentence,
        category,
        caller.f_code.co_filename,
        caller.f_lineno,
        caller.f_globals.get("__name__"),
        caller.f_globals.setdefault("__warningregistry__", {}),
    )
