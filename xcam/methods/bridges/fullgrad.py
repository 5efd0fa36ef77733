"""FullGrad's formula: gradients at the image and at all biases."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from xcam import imaging
from xcam.core import Target
from xcam.engine import eager, forward, gradients, hooks, unwrap
from xcam.engine.wrappers import check_all_layers
from xcam.methods.gradient.input_gradients import make_no_gradient_error

__all__ = ["explain_biases"]


def explain_biases(method: Any, model: nn.Module, images: Tensor, target: Target) -> Tensor:  # noqa: ANN401
    """Return ψ(x ⊙ ∂y/∂x) + Σ ψ(b_c ∂y/∂z_c) over the channels c of all layers with a bias."""
    net = unwrap(model)
    check_all_layers(net)
    found: list[tuple[nn.Module, Tensor]] = []

    def record(module: nn.Module) -> Any:  # noqa: ANN401
        def after(_: object, output: Any) -> Tensor:  # noqa: ANN401
            found.append((module, output))
            copied: Tensor = output.clone()  # the net may overwrite it
            return copied

        return after

    with ExitStack() as stack:
        stack.enter_context(gradients(net))
        stack.enter_context(eager())
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d) and _find_bias(module) is not None:
                stack.enter_context(hooks(module, after=record(module)))
        leaf = images.detach().clone().requires_grad_()
        prediction = forward.call(net, leaf)
        if not target.bound:
            target.bind(prediction)
        scores = target.scores(prediction, output=method.output)
        if not scores.requires_grad:
            raise make_no_gradient_error()
        inputs = [leaf, *(output for _, output in found)]
        own, *others = torch.autograd.grad(scores.sum(), inputs, allow_unused=True)
    if own is None:
        raise make_no_gradient_error()
    size = (images.shape[2], images.shape[3])
    maps = _postprocess(own * leaf.detach(), size)
    for (module, _), gradient in zip(found, others, strict=True):
        bias = _find_bias(module)
        if gradient is not None and bias is not None:
            maps = maps + _postprocess(bias.detach()[:, None, None] * gradient, size)
    return maps


def _find_bias(module: nn.Module) -> Tensor | None:
    """Return what a convolution or norm adds to each channel, (C,); None if nothing."""
    bias = module.bias
    if not isinstance(module, nn.BatchNorm2d):
        return bias if isinstance(bias, Tensor) else None
    if module.running_mean is None or module.running_var is None or module.weight is None:
        return None
    scale = module.weight / (module.running_var + module.eps).sqrt()
    return module.bias - module.running_mean * scale


def _postprocess(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Take magnitudes (B, C, h, w), min-max each channel, enlarge it, and sum the channels."""
    magnitudes = imaging.normalize(values.abs().float())
    enlarged = imaging.resize(magnitudes.flatten(0, 1), size)
    return enlarged.view(len(values), -1, *size).sum(1)
