"""Pages of HTML that hold all that they show: their style, their script and their pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xcam.runs import files
from xcam.sentences import escape_name

__all__ = ["Example", "encode_picture", "write_page"]

_TEMPLATES = "templates"
_QUALITY = 80  # of JPEG


@dataclass(frozen=True)
class Example:
    """A row of pictures on a page.

    Attributes:
        title: What the image is called, such as the name of its file.
        caption: The class that is explained, in a few lines.
        pictures: What `encode_picture` returned, by the title of the column.
        notes: What to know of a map, by the title of the column.
    """

    title: str
    caption: str
    pictures: Mapping[str, str]
    notes: Mapping[str, str] = field(default_factory=dict)


def write_page(path: str | Path, template: str, content: Mapping[str, Any]) -> None:
    """Write a page whole or not at all; what is not the template's own stays text.

    Args:
        path: The file; one that exists is replaced.
        template: The name of one of the package's templates.
        content: What the template asks for.

    Raises:
        OSError: The folder is missing or cannot be written to.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("xcam.core", _TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _read("page.js")
    # The page may run this script and load nothing else, whatever a name in it says.
    digest = base64.b64encode(sha256(script.encode()).digest()).decode("ascii")
    text = environment.get_template(template).render(
        style=_read("page.css"), script=script, digest=digest, version=version("xcam"), **content
    )
    # Names of files may hold bytes that are no text.
    files.write(path, escape_name(text).encode("utf-8", "backslashreplace"))


def encode_picture(pixels: Tensor, side: int) -> str:
    """Return a picture (1 or 3, H, W) in [0, 1] as a data URI, its longer side `side` at most."""
    from PIL import Image

    scale = side / max(pixels.shape[-2:])
    if scale < 1:
        size = [max(1, round(one * scale)) for one in pixels.shape[-2:]]
        pixels = F.interpolate(pixels[None].float(), size, mode="bilinear", antialias=True)[0]
    values = (pixels.expand(3, -1, -1).clamp(0, 1) * 255).round().to(torch.uint8)
    content = io.BytesIO()
    picture = Image.fromarray(values.movedim(0, -1).cpu().numpy())
    picture.save(content, "JPEG", quality=_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode("ascii")


def _read(name: str) -> str:
    return (package_files("xcam.core") / _TEMPLATES / name).read_text("utf-8")
