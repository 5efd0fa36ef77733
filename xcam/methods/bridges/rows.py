"""A table row of a method that another library computes, and the method made from it."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Target

__all__ = ["Row", "Setting", "build_method"]


@dataclasses.dataclass(frozen=True)
class Setting:
    """A hyper-parameter in a row: a field of the method.

    Attributes:
        name: Of the field.
        kind: Its annotation, by which values are checked.
        default: What suits images.
        text: What it is, for the docstring; a sentence.
    """

    name: str
    kind: Any
    default: Any
    text: str

    def replace(self, default: object) -> Setting:
        """Return the setting with another default."""
        return dataclasses.replace(self, default=default)


@dataclasses.dataclass(frozen=True)
class Row:
    """A method as data.

    Attributes:
        name: Of the class that is made.
        spec: What cannot be derived.
        text: The docstring up to the settings: a line that says what the map is, then a paragraph
            with formula and source.
        settings: The hyper-parameters, in order.
        run: From the method, the model, images (B, C, H, W) and target to raw maps, as
            `Method.maps`.
    """

    name: str
    spec: MethodSpec
    text: str
    settings: tuple[Setting, ...]
    run: Callable[[Any, nn.Module, Tensor, Target], Tensor]


def build_method(row: Row, module: str) -> type[Method]:
    """Build the method of a row: a frozen dataclass like one that is written out.

    Args:
        row: The row.
        module: The name of the module that holds the class under its name, for pickling.
    """

    def maps(self: Method, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps; see `Method.maps`."""
        return row.run(self, model, images, target)

    text = "\n\n".join(textwrap.fill(part, 96) for part in row.text.split("\n\n"))
    settings = "\n".join(_describe(each) for each in row.settings)
    return dataclasses.make_dataclass(
        row.name,
        [(each.name, each.kind, dataclasses.field(default=each.default)) for each in row.settings],
        bases=(Method,),
        namespace={
            "spec": row.spec,
            "maps": maps,
            "__doc__": f"{text}\n\nAttributes:\n{settings}\n",
            "__module__": module,
        },
        frozen=True,
        eq=False,
        repr=False,
    )


def _describe(setting: Setting) -> str:
    """Return the entry of a setting in a docstring."""
    text = f"{setting.name}: {setting.text}"
    return textwrap.fill(text, 96, initial_indent=" " * 4, subsequent_indent=" " * 8)
