"""Finding where in a recorded pass a head belongs."""

from __future__ import annotations

import itertools

from torch import nn

from xcam.engine.hints import read_hints
from xcam.engine.layout import find_layout
from xcam.engine.trace import Call, Trace

__all__ = ["last_stage", "reads_image"]


def last_stage(net: nn.Module, passed: Trace) -> str | None:
    """Return the outermost module with convolutions that ends them at one resolution.

    It reads a feature map, not the image, at most twice as large a side as the map it gives. So it
    is `layer4` of a ResNet, the last dense block of a DenseNet, without the norm behind it,
    `features.7` of torchvision's ConvNeXt, and the last convolution of a net without stages, such
    as VGG. Modules that are called several times are left out.

    Args:
        net: Without wrappers.
        passed: A recorded pass of it.

    Returns:
        Its name; None if there is no such module.
    """
    images = passed.images.shape
    hints = read_hints(net, images[1])
    for call in reversed(passed.calls):
        before, after = call.input_shape, call.output_shape
        if before is None or after is None or call.times > 1 or not _convolves(call):
            continue
        one_resolution = len(before) == 4 == len(after) and all(
            side <= 2 * smaller for side, smaller in zip(before[2:], after[2:], strict=True)
        )
        if not one_resolution or reads_image(passed, call):
            continue
        layouts = [find_layout(shape, images, hints, call.module) for shape in (before, after)]
        if all(layout is not None and layout.order == "NCHW" for layout in layouts):
            return call.name
    return None


def reads_image(passed: Trace, call: Call) -> bool:
    """Return whether a module reads the image: itself, or normalized or resized before.

    What has as many channels as the image, before any convolution, counts as the image.
    """
    if call.inputs and call.inputs[0] is passed.images:
        return True
    inside = set(call.module.modules())
    earlier = itertools.takewhile(lambda other: other is not call, passed.calls)
    if any(_convolves(other) and other.module not in inside for other in earlier):
        return False
    shape = call.input_shape
    return shape is not None and shape[1:2] == passed.images.shape[1:2]


def _convolves(call: Call) -> bool:
    """Return whether a module is, or holds, a convolution."""
    return any(isinstance(module, nn.Conv2d) for module in call.module.modules())
