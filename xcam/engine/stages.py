"""Finding where in a recorded pass a head belongs: the stages of a net."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from torch import nn

from xcam.engine.hints import read_hints
from xcam.engine.layout import find_layout
from xcam.engine.trace import Call, Trace

__all__ = ["last_stage", "list_stages", "reads_image"]

# A module shrinks maps in several steps if it does by this much more than any layer inside it.
_ONE_STEP = 1.5


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


def list_stages(net: nn.Module, passed: Trace) -> tuple[list[str], list[str]]:
    """Return the modules that give the maps of the stem and of each stage, in order.

    These are `maxpool` and `layer1` to `layer4` of torchvision's ResNets, `features.0`, `.1`, `.3`,
    `.5` and `.7` of its ConvNeXts, and the first layer and the last block of each width in its
    EfficientNets and MobileNets. In a net without blocks it is the last layer of each resolution.
    Modules that are called several times are left out, and so is what does not give a map, channels
    first, of more than one cell.

    Args:
        net: Without wrappers.
        passed: A recorded pass of it.

    Returns:
        Their names; and those of the modules that only shrink the maps between two stages.
    """
    units = _list_units(net, passed)
    if not any(map(_count_convolutions, units)):  # such as a transformer with a map at its end
        return [], []
    first = next((i for i, unit in enumerate(units) if _is_stage(unit, passed)), None)
    if first is None:
        return [*{unit.output.shape[2:]: unit.name for unit in units}.values()], []
    stem = [unit.name for unit in units[max(first - 1, 0) : first]]
    stages, between, size = list[str](), list[str](), None
    for unit, following in zip(units[first:], [*units[first + 1 :], None], strict=True):
        is_shrunk = size is not None and unit.output.shape[2:] != size
        size = unit.output.shape[2:]
        goes_on = following is not None and following.output.shape[2:] == size
        if goes_on and is_shrunk and _count_convolutions(unit) < 2:
            between.append(unit.name)
        elif following is None or following.output.shape != unit.output.shape:
            stages.append(unit.name)
    return stem + stages, between


def _list_units(net: nn.Module, passed: Trace) -> list[Call]:
    """Return the calls of the outermost modules that shrink maps in one step, in their order."""
    inputs = passed.images.shape
    hints = read_hints(net, inputs[1])
    calls = {call.name: call for call in passed.calls}
    found = {call.name for call in _expand(net, "", calls)}
    units = []
    for call in passed.calls:
        shape = call.output_shape
        if call.name not in found or call.times > 1 or isinstance(call.module, nn.Identity):
            continue
        if shape is not None and len(shape) == 4:
            layout = find_layout(shape, inputs, hints, call.module)
            if layout is not None and layout.order == "NCHW":
                units.append(call)
    return units


def _expand(module: nn.Module, name: str, calls: dict[str, Call]) -> Iterator[Call]:
    for part, child in module.named_children():
        inside = f"{name}.{part}" if name else part
        call = calls.get(inside)
        if call is None or _has_stages(child, call, calls):
            yield from _expand(child, inside, calls)
        else:
            yield call


def _has_stages(module: nn.Module, call: Call, calls: dict[str, Call]) -> bool:
    """Return whether a module shrinks maps in several steps, or gives something else than a map."""
    prefix = f"{call.name}."
    layers = [c for name, c in calls.items() if name.startswith(prefix) and _is_layer(c.module)]
    if not layers or not any(isinstance(part, nn.Conv2d) for part in module.modules()):
        return False
    factor = _measure_shrinkage(call)
    if factor is None:
        return True
    steps = [_measure_shrinkage(c) for c in layers if not _pools_everything(c)]
    return factor > _ONE_STEP * max([1.0, *filter(None, steps)])


def _pools_everything(call: Call) -> bool:
    """Return whether a layer gives one cell, as the pooling in squeeze and excitation."""
    shape = call.output_shape
    return shape is not None and math.prod(shape[2:]) == 1


def _is_layer(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _measure_shrinkage(call: Call) -> float | None:
    """Return by how much a side of the map shrinks; None where no map becomes a map."""
    before, after = call.input_shape, call.output_shape
    if before is None or after is None or len(before) != 4 or len(after) != 4:
        return None
    if before != after and sorted(before) == sorted(after):  # a permutation, as in ConvNeXt
        return None
    return max(a / b for a, b in zip(before[2:], after[2:], strict=True) if b)


def _is_stage(unit: Call, passed: Trace) -> bool:
    """Return whether a module is made of layers with convolutions, and does not read the image."""
    blocks = not _is_layer(unit.module) and _count_convolutions(unit) > 0
    return blocks and not reads_image(passed, unit)


def _count_convolutions(unit: Call) -> int:
    return sum(isinstance(module, nn.Conv2d) for module in unit.module.modules())
