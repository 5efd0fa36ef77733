"""Choosing layers from a recorded pass: the one to explain, and where a head belongs."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from xcam.core import Headed, extract_logits
from xcam.engine import eager, forward, gradients, untouched, unwrap
from xcam.engine.layout import Layout, norm_widths
from xcam.engine.trace import Call, Trace, output_tensors, record_pass
from xcam.engine.wrappers import check_layers
from xcam.errors import LayerError, ModelOutputError

__all__ = ["default_layer", "last_stage", "reads_image"]

_POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_PASSIVE = (nn.Dropout, nn.Identity, nn.Softmax)  # no layer of its own; softmax: attention matrices
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def default_layer(model: nn.Module, images: Tensor, without: Collection[str] = ()) -> str:
    """Choose the layer to explain when nobody names one: the features that the classifier reads.

    It is the last module other than pooling whose output is a map of more than one cell on the way
    to the scores. Chosen only if there is no other: scores that are maps themselves (one channel
    for each class, before the final pooling), and bare projections of tokens. So a ResNet gives its
    last stage, DenseNet and EfficientNet `features`, VGG and AlexNet the last ReLU before the last
    max-pooling, and a net that shares one ReLU the last call of it. Where only the class token is
    read, the patches of the last block do not reach the scores, and it is that block's first norm.
    Neither the images' values nor their number make a difference.

    The pass runs on a copy of the model without weights, on the meta device. Models that fail there
    or read from prefix tokens take one more pass, of the first image.

    Args:
        model: The classifier, in any wrapper.
        images: (B, C, H, W), what `model` takes.
        without: Names of layers to leave out.

    Returns:
        A name as in `named_modules()` of the unwrapped model.

    Raises:
        LayerError: No module gives such a map, or the model is scripted or traced.
    """
    net = unwrap(model)
    check_layers(net)
    without = {*without, *_inside_heads(net)}
    name = _on_meta(net, images, without) or _on_first_image(net, images, without)
    if name is None:
        exported = isinstance(net, torch.fx.GraphModule)  # torch.export leaves no modules to call
        remedy = "explain the nn.Module that it was made from" if exported else "use larger images"
        raise LayerError(
            f"no layer of {type(net).__name__} gives a map of more than one cell for images of "
            f"shape {tuple(images.shape)}; {remedy}, or use a method that reads no layer"
        )
    return name


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
    widths = norm_widths(net)
    for call in reversed(passed.calls):
        before, after = call.input_shape, call.output_shape
        if before is None or after is None or call.times > 1 or not _convolves(call):
            continue
        one_resolution = len(before) == 4 == len(after) and all(
            side <= 2 * smaller for side, smaller in zip(before[2:], after[2:], strict=True)
        )
        if not one_resolution or reads_image(passed, call):
            continue
        layouts = [Layout.of(shape, passed.images.shape, widths) for shape in (before, after)]
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


def _inside_heads(net: nn.Module) -> Iterator[str]:
    """Yield the names of the modules of heads: what they read is not what the classifier reads."""
    for name, module in net.named_modules():
        if isinstance(module, Headed):
            prefix = f"{name}.head" if name else "head"
            yield from (inner for inner, _ in module.head.named_modules(prefix=prefix))


def _on_meta(net: nn.Module, images: Tensor, without: Collection[str] = ()) -> str | None:
    """Return the default layer from shapes alone; None if the model needs values for it."""
    probe = torch.empty(1, *images.shape[1:], dtype=images.dtype, device="meta")
    with torch.inference_mode(False), torch.enable_grad(), eager():
        try:
            skeleton = _skeleton(net)
            chosen = _choose(_record(skeleton, skeleton, probe), norm_widths(net), without)
        except Exception:  # whatever the model does that needs values: `.item()`, numpy
            return None
    return None if chosen is None or chosen.layout.prefix else chosen.name


def _on_first_image(net: nn.Module, images: Tensor, without: Collection[str]) -> str | None:
    """Return the default layer from the gradients of the first image; None if there is none."""
    with gradients(net), eager(), untouched(net):
        passed = _record(net, partial(forward.call, net), images[:1].detach())
        chosen = _choose(passed, norm_widths(net), without)
    return chosen.name if chosen else None


def _skeleton(net: nn.Module) -> nn.Module:
    """Copy a net in eval mode without its hooks, on the meta device, where it takes no memory."""
    memo: dict[int, Any] = {}
    for parameter in net.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=False)
    for buffer in net.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    for module in net.modules():
        for hooks in _HOOKS:
            memo[id(getattr(module, hooks))] = type(getattr(module, hooks))()
    skeleton = copy.deepcopy(net, memo)
    for module in skeleton.modules():
        module.training = False
    return skeleton


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A tensor that holds a map, with the name of the last, outermost module that returned it."""

    name: str
    tensor: Tensor
    layout: Layout
    second_choice: bool

    def leads_to(self, scores: Sequence[Tensor]) -> bool:
        """Return whether any of the scores depends on any cell of the map.

        With NaN as the scores' gradients, the gradient is NaN in each cell that they depend on,
        also through weights that are zero, such as those of a new head, and zero in all others.
        Meta tensors tell only whether the scores depend on the tensor as a whole.
        """
        if not scores:
            return True  # the model works under `no_grad`: there is no graph to tell it from
        if not self.tensor.requires_grad:
            return False
        nans = [torch.full_like(score, math.nan) for score in scores]
        (gradient,) = torch.autograd.grad(
            scores, self.tensor, nans, retain_graph=True, allow_unused=True
        )
        if gradient is None or gradient.is_meta:
            return gradient is not None
        return bool(self.layout.read(gradient).isnan().any())


def _record(net: nn.Module, run: Callable[[Tensor], Any], images: Tensor) -> Trace:
    """Record a pass whose every tensor has a graph from the images on."""
    images = images.clone().requires_grad_().clone()  # no leaf: the model may write into it
    return record_pass(net, images, run)


def _choose(passed: Trace, widths: set[int], without: Collection[str]) -> _Candidate | None:
    """Choose the last map on the way to the scores; second choices only if there is no other."""
    ranked = _candidates(passed, widths, without)[::-1]
    ranked.sort(key=lambda candidate: candidate.second_choice)
    scores = [score for score in _scores(passed) if score.requires_grad]
    return next((candidate for candidate in ranked if candidate.leads_to(scores)), None)


def _scores(passed: Trace) -> list[Tensor]:
    """Return the logits of a pass; all tensors of its output if those cannot be told."""
    try:
        return [extract_logits(passed.output, len(passed.images))]
    except ModelOutputError:
        return [*output_tensors(passed.output)]


def _candidates(passed: Trace, widths: set[int], without: Collection[str]) -> list[_Candidate]:
    """List the tensors that hold maps, without what pooling returned, in the order of return."""
    calls = [call for call in passed.calls if not isinstance(call.module, _PASSIVE)]
    outputs = [(call, call.tensor) for call in calls if call.tensor is not None]
    pooled = {id(tensor) for call, tensor in outputs if isinstance(call.module, _POOLING)}
    last_weights = max((i for i, (call, _) in enumerate(outputs) if _has_weights(call)), default=0)
    num_classes = next((score.shape[1] for score in _scores(passed) if score.ndim > 1), None)
    candidates: dict[int, _Candidate] = {}
    for index, (call, tensor) in enumerate(outputs):
        layout = Layout.of(tensor.shape, passed.images.shape, widths)
        if layout is None or id(tensor) in pooled or call.name in without:
            continue
        channels = tensor.shape[1 if layout.order == "NCHW" else -1]
        class_maps = index >= last_weights and channels == num_classes
        second_choice = class_maps or _projects_tokens(call.module, layout)
        candidates.pop(id(tensor), None)  # the last, outermost module that returns it names it
        candidates[id(tensor)] = _Candidate(call.name, tensor, layout, second_choice)
    return list(candidates.values())


def _has_weights(call: Call) -> bool:
    """Return whether a module is a single operation with weights."""
    leaf = next(call.module.children(), None) is None
    return leaf and next(call.module.parameters(), None) is not None


def _projects_tokens(module: nn.Module, layout: Layout) -> bool:
    """Return whether a module is a part of an attention or a perceptron: no block, and no norm."""
    leaf = next(module.children(), None) is None
    return leaf and layout.order == "tokens" and "Norm" not in type(module).__name__
