"""What the checkpoints of published code hold."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from xcam.errors import FileFormatError

__all__ = ["published_state"]


def published_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint (.pth.tar) by name, without the prefix of `DataParallel`.

    The file is a state dict, or has one under `state_dict`. It is read as weights alone: no code
    in it runs.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is no such checkpoint.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {str(path)!r}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise FileFormatError(f"{str(path)!r} is no checkpoint of weights: {reason}") from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise FileFormatError(f"{str(path)!r} holds no 'state_dict', got {type(content).__name__}")
    return {
        str(name).removeprefix("module."): value
        for name, value in state.items()
        if isinstance(value, Tensor)
    }
