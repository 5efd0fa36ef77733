"""What an image takes in a net: the largest output of its layers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn

from xcam.engine.skeleton import ShapeInference, skeleton
from xcam.engine.structure import remember
from xcam.engine.trace import Call, output_tensors, record_pass
from xcam.engine.wrappers import unwrap
from xcam.forks import importing

__all__ = ["keep_footprint", "measure_footprint"]


def measure_footprint(model: nn.Module, images: Tensor) -> int | None:
    """Return the bytes of the largest tensor that a layer gives for one image.

    It is found once for a net and size of images, by a pass on the meta device.

    Args:
        model: In any wrapper.
        images: (B, C, H, W); only their shape, dtype and device count.

    Returns:
        None if the net cannot run without values, or gives none of its layers away.
    """
    net = unwrap(model)
    return remember(net, _make_key(images), lambda: _measure(net, images.shape[1:], images.dtype))


def keep_footprint(net: nn.Module, images: Tensor, calls: Sequence[Call]) -> None:
    """Keep what a pass on the meta device has shown, so that `measure_footprint` needs none.

    Args:
        net: Without wrappers.
        images: (B, C, H, W) of that pass.
        calls: The layers' calls in it.
    """
    remember(net, _make_key(images), lambda: _find_largest(calls, len(images)))


def _make_key(images: Tensor) -> Hashable:
    return "footprint", images.shape[1:], images.dtype


def _measure(net: nn.Module, shape: torch.Size, dtype: torch.dtype) -> int | None:
    with torch.inference_mode(False), torch.no_grad(), importing():
        try:
            empty = skeleton(net)
            with ShapeInference():
                passed = record_pass(empty, torch.empty(1, *shape, dtype=dtype, device="meta"))
        except Exception:  # whatever the model does that needs values
            return None
    return _find_largest(passed.calls, 1)


def _find_largest(calls: Sequence[Call], rows: int) -> int | None:
    sizes = [
        tensor.numel() * tensor.element_size() // rows
        for call in calls
        for tensor in output_tensors(call.output)
    ]
    return max(sizes, default=None)
