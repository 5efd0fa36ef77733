"""What methods and metrics share: frozen settings that print as the whole recipe."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

from torch import Tensor

__all__ = ["Settings"]


class Settings:
    """A frozen dataclass of settings."""

    def __repr__(self) -> str:
        """The whole recipe; a tensor prints as its shape and a hash of its values."""
        values = (f"{name}={_show(value)}" for name, value in self.parameters().items())
        return f"{type(self).__name__}({', '.join(values)})"

    def parameters(self) -> dict[str, Any]:
        """The settings by name, in order of declaration."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]  # subclasses are dataclasses
        return {entry.name: getattr(self, entry.name) for entry in fields}


def _show(value: object) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    content = value.detach().float().cpu().numpy().tobytes()
    return f"tensor{tuple(value.shape)}#{hashlib.sha256(content).hexdigest()[:8]}"
