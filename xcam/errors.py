"""The exceptions that somebody may want to catch by name."""

from __future__ import annotations

__all__ = [
    "FileFormatError",
    "LayerError",
    "ModelOutputError",
    "NotFittedError",
    "PluginWarning",
    "UnknownNameError",
    "XcamError",
    "XcamWarning",
]


class XcamError(Exception):
    """Base of every error that only xcam raises."""


class UnknownNameError(XcamError, KeyError):
    """No method, metric or layer has this name; the message lists the nearest ones."""

    def __str__(self) -> str:
        """The sentence itself: `KeyError` would print its repr."""
        return str(self.args[0]) if self.args else ""


class LayerError(XcamError, ValueError):
    """The chosen layer gives nothing that can be read as a map."""


class ModelOutputError(XcamError, ValueError):
    """The model's output is not one finite (B, K) tensor of scores."""


class NotFittedError(XcamError, ValueError, AttributeError):
    """A trainable method was asked for maps before its head was trained."""


class FileFormatError(XcamError, ValueError):
    """A file is damaged, truncated, or was written by something else."""


class XcamWarning(UserWarning):
    """Base of xcam's warnings."""


class PluginWarning(XcamWarning):
    """A plugin failed to load, or brought a name that is taken."""
