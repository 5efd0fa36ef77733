"""Check that weights in a third-party file are finite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from xcam.errors import FileFormatError

__all__ = ["check_finite"]


def check_finite(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that are NaN or infinite.

    Args:
        path: The file that they are from.
        tensors: By their names in the file, in the types of the net that they are for.

    Raises:
        FileFormatError: One is NaN or infinite; the first such tensor is named.
    """
    for name, tensor in tensors.items():
        count = int((~tensor.isfinite()).sum())
        if count:
            raise FileFormatError(
                f"{count} of the {tensor.numel()} values of {name!r} in {str(path)!r} are NaN or "
                f"infinite in {tensor.dtype}; give a checkpoint from before its training diverged"
                ", or a model of a wider type"
            )
