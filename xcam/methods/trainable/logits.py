"""The logits in the output of a classifier that carries a head."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from xcam.core import extract_logits
from xcam.errors import ModelOutputError

__all__ = ["require_logits"]


def require_logits(net: nn.Module, output: object, rows: int) -> Tensor:
    """Return the logits (rows, K) in an output of a net that has a head, or is to have one.

    Raises:
        ModelOutputError: There are none, or more than one tensor could be.
    """
    try:
        return extract_logits(output, rows)
    except ModelOutputError as error:
        parts = _parts(output)
        kinds = [tuple(p.shape) if isinstance(p, Tensor) else type(p).__name__ for p in parts]
        remedy = "wrap it in a module that returns the scores alone"
        if len(parts) > 1:
            left_out = "xcam.models.load(…, aux_logits=False) leaves torchvision's out"
            remedy = f"train it without auxiliary classifiers, {left_out}, or {remedy}"
        raise ModelOutputError(
            f"a head needs a net that returns one floating-point ({rows}, K) tensor of class "
            f"scores{', also in training' if net.training else ''}, and {type(net).__name__} "
            f"returns {', '.join(map(str, kinds)) or 'nothing'}; {remedy}"
        ) from error


def _parts(output: object) -> tuple[object, ...]:
    if isinstance(output, Mapping):
        return tuple(output.values())
    return tuple(output) if isinstance(output, tuple | list) else (output,)
