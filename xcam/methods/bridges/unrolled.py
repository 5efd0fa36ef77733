# ruff: noqa: A006 - `input` is the name of the argument in torch

"""A copy of a net in which each call of a function that a library must see is a module's.

DeepLift and LRP give functions rules of their own, and captum finds them as modules that are each
called once. Most nets call some as functions, or one module in several places.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from xcam.core import extract_logits
from xcam.engine import forward
from xcam.engine.wrappers import check_all_layers
from xcam.errors import LayerError

__all__ = ["ACTIVATIONS", "MAX_POOLS", "MEANS", "SUMS", "Route", "Unrolled", "make_unrouted"]

Route: TypeAlias = Callable[..., "tuple[tuple[Tensor, ...], nn.Module] | None"]
"""From a call's arguments to the tensors and a new module that does the same; None to leave it."""


class Unrolled(nn.Module):
    """A net whose n-th routed call is made by the n-th of its `calls`, as in the pass before.

    Args:
        net: Copied. Without wrappers.
        routes: What becomes of each function.
        images: (R, C, H, W), for a pass in which the calls are found.
        logits: Of the net for these images first, by which the copy is checked; None if unknown.

    Raises:
        LayerError: A part of the net is scripted or exported, so that its functions cannot be seen;
            the net cannot be copied; or the copy computes something else.
    """

    def __init__(
        self,
        net: nn.Module,
        routes: Mapping[Any, Route],
        images: Tensor,
        logits: Tensor | None = None,
    ) -> None:
        super().__init__()
        check_all_layers(net)
        self.net = _copy(net)
        self.calls = nn.ModuleList()
        self.training = False
        self._routes, self._count = routes, 0
        for module in list(self.net.modules()):
            if type(module) in _ROUTED_MODULES or type(module).__name__ == "Addition_Module":
                _hide(module)
            elif list(module.parameters(recurse=False)):
                module.register_forward_pre_hook(_separate)
        with torch.no_grad():
            output = forward.call(self, images)
        if logits is not None:
            self._check(extract_logits(output, len(images)), logits[: len(images)])

    def forward(self, images: Tensor) -> Any:  # noqa: ANN401 - whatever the net gives
        """Return the net's output."""
        self._count = 0
        with _Mode(self._route):
            return self.net(images)

    @staticmethod
    def _check(found: Tensor, expected: Tensor) -> None:
        exact = found.dtype == torch.float32 and forward.current_runtime().precision == "full"
        off = (found - expected.to(found)).abs().max() / expected.abs().max().clamp(min=1e-30)
        if off > (1e-3 if exact else 0.1):
            raise LayerError(
                "the model computes something else when its activations do not work in place; use "
                "a method without rules for layers, such as 'integrated_gradients'"
            )

    def _route(self, function: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        """Make a call by a module of its own, or as it is."""
        route = self._routes.get(function)
        found = None if route is None else route(*args, **kwargs)
        if found is None:
            return function(*args, **kwargs)
        tensors, module = found
        if self._count == len(self.calls):
            self.calls.append(module.eval())
        self._count += 1
        module = self.calls[self._count - 1]
        return module(*_separate(module, tensors)).clone()


class _Mode(TorchFunctionMode):
    """Hands each function that is called in this thread to another one."""

    def __init__(self, route: Callable[[Any, Any, Any], Any]) -> None:
        super().__init__()
        self._route = route

    def __torch_function__(
        self,
        function: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: Any = (),  # noqa: ANN401
        kwargs: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        return self._route(function, args, kwargs or {})


def _separate(_module: nn.Module, tensors: tuple[Any, ...]) -> tuple[Any, ...]:
    """Copy what a module gets.

    Captum hooks the tensors that a module gets and gives. Where one of them is what another module
    gave or gets, too, as between an activation and a pooling, it misses what the other's rule does.
    """
    return tuple(each.clone() if isinstance(each, Tensor) else each for each in tensors)


def make_unrouted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function within which no call is routed."""

    @functools.wraps(function)
    def run(*args: Any) -> Any:  # noqa: ANN401
        with torch._C.DisableTorchFunction():
            return function(*args)

    return run


def _copy(net: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(net)
    except Exception as error:  # whatever an attribute of the net raises: locks, open files
        raise LayerError(
            f"the model cannot be copied, as rules for layers need: {error}; use a method without "
            "rules for layers, such as 'integrated_gradients'"
        ) from error


def _hide(module: nn.Module) -> None:
    """Keep a library from taking a module for one of those that it has rules for, or for a leaf."""
    kind = type(module)
    module.__class__ = type(kind.__name__, (kind,), {})
    module.add_module("unused", nn.ReLU())


def _elementwise(function: Callable[..., Tensor], values: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    """Make a function of each element a module of a type that has the rule of a ReLU."""
    if not isinstance(values, Tensor) or not values.is_floating_point():
        return None
    if any(isinstance(each, Tensor) and each.ndim > 1 for each in (*args, *kwargs.values())):
        return None  # features, perhaps of one pass only
    settings = {name: value for name, value in kwargs.items() if name != "inplace"}
    module = nn.ReLU()
    # An instance's own forward: libraries find the rule of a module by its exact type.
    module.forward = lambda input: function(input, *args, **settings)  # type: ignore[method-assign]
    return (values,), module


def _rectify(values: Any, inplace: bool = False) -> Any:  # noqa: ANN401
    return ((values,), nn.ReLU()) if values.is_floating_point() else None


def _out_of_place(function: Callable[..., Tensor], places: int) -> Route:
    """Make the route of a function that takes `inplace` after so many settings."""

    def route(values: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return _elementwise(function, values, *args[:places], **kwargs)

    return route


def _max_pool(
    values: Any,  # noqa: ANN401
    kernel_size: Any,  # noqa: ANN401
    stride: Any = None,  # noqa: ANN401
    padding: Any = 0,  # noqa: ANN401
    dilation: Any = 1,  # noqa: ANN401
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # noqa: ANN401
    if return_indices:
        return None
    kernel, steps, margins, gaps = (
        _pair(each) for each in (kernel_size, stride or kernel_size, padding, dilation)
    )
    if (kernel, margins, gaps) == (steps, (0, 0), (1, 1)) and not ceil_mode:
        return (values,), nn.MaxPool2d(kernel)
    empty = torch.empty(values.shape, device="meta")
    counts = F.max_pool2d(empty, kernel, steps, margins, gaps, ceil_mode).shape[-2:]
    for axis in (0, 1):
        settings = (kernel[axis], steps[axis], margins[axis], gaps[axis])
        values = _part_windows(values, axis - 2, counts[axis], *settings)
    return (values,), nn.MaxPool2d(kernel)


def _pair(size: Any) -> tuple[int, int]:  # noqa: ANN401
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))


def _part_windows(
    values: Tensor, axis: int, count: int, length: int, step: int, margin: int, gap: int
) -> Tensor:
    """Lay windows that overlap side by side: captum's rule loses what two share."""
    starts = step * torch.arange(count, device=values.device) - margin
    places = (starts[:, None] + gap * torch.arange(length, device=values.device)).flatten()
    outside = (places < 0) | (places >= values.shape[axis])
    laid = values.index_select(axis, places.clamp(0, values.shape[axis] - 1))
    lowest = torch.finfo(values.dtype).min / 2
    return laid.masked_fill(outside if axis == -1 else outside[:, None], lowest)


def _add(first: Any, second: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    both = isinstance(first, Tensor) and isinstance(second, Tensor)
    if kwargs or not both or first.ndim != 4 or first.shape != second.shape:
        return None
    from captum.attr._utils.custom_modules import Addition_Module

    return (first, second), Addition_Module()


def _adaptive_pool(values: Any, output_size: Any) -> Any:  # noqa: ANN401
    return (values,), nn.AdaptiveAvgPool2d(output_size)


def _average_pool(values: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    return (values,), nn.AvgPool2d(*args, **kwargs)


def _mean(values: Any, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Any:  # noqa: ANN401
    axes = {axis % 4 for axis in dim} if isinstance(dim, tuple | list) else set()
    if kwargs or values.ndim != 4 or axes != {2, 3}:
        return None
    pool = nn.AdaptiveAvgPool2d(1)
    if not keepdim:
        pool.forward = lambda input: F.adaptive_avg_pool2d(input, 1).flatten(1)  # type: ignore[method-assign]
    return (values,), pool


_INPLACE: dict[Any, int] = {
    F.leaky_relu: 1, F.elu: 1, F.celu: 1, F.selu: 0, F.relu6: 0, F.hardtanh: 2, F.silu: 0,
    F.mish: 0, F.hardswish: 0, F.hardsigmoid: 0, F.rrelu: 3, F.threshold: 2,
}  # fmt: skip
_ELEMENTWISE = (
    F.gelu, F.softplus, F.logsigmoid, F.tanhshrink, F.softsign, torch.sigmoid, torch.tanh,
    Tensor.sigmoid, Tensor.tanh, F.prelu, Tensor.prelu, torch.selu, torch.celu, torch.threshold,
    F.hardshrink, Tensor.hardshrink, F.softshrink, torch.clamp, torch.clip, torch.clamp_min,
    torch.clamp_max, Tensor.clamp, Tensor.clip, Tensor.clamp_min, Tensor.clamp_max,
)  # fmt: skip
_TWINS: dict[Any, Callable[..., Tensor]] = {
    F.leaky_relu_: F.leaky_relu, F.elu_: F.elu, F.hardtanh_: F.hardtanh,
    torch.selu_: torch.selu, torch.celu_: torch.celu, torch.threshold_: torch.threshold,
    torch.rrelu_: torch.rrelu, torch.sigmoid_: torch.sigmoid, Tensor.sigmoid_: torch.sigmoid,
    torch.tanh_: torch.tanh, Tensor.tanh_: torch.tanh, torch.clamp_: torch.clamp,
    torch.clip_: torch.clip, Tensor.clamp_: torch.clamp, Tensor.clip_: torch.clip,
    Tensor.clamp_min_: torch.clamp_min, Tensor.clamp_max_: torch.clamp_max,
}  # fmt: skip
"""Functions that work in place, and what does the same out of place."""

ACTIVATIONS: Mapping[Any, Route] = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_), _rectify),
    **{function: _out_of_place(function, places) for function, places in _INPLACE.items()},
    **{function: partial(_elementwise, function) for function in _ELEMENTWISE},
    **{function: partial(_elementwise, twin) for function, twin in _TWINS.items()},
}
MAX_POOLS: Mapping[Any, Route] = {
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d), _max_pool),
}
MEANS: Mapping[Any, Route] = {
    **dict.fromkeys((F.adaptive_avg_pool2d,), _adaptive_pool),
    **dict.fromkeys((F.avg_pool2d,), _average_pool),
    **dict.fromkeys((torch.mean, Tensor.mean), _mean),
}
SUMS: Mapping[Any, Route] = dict.fromkeys(
    (torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__), _add
)
_ROUTED_MODULES = {
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.Hardtanh, nn.SiLU, nn.Mish,
    nn.Hardswish, nn.Hardsigmoid, nn.GELU, nn.Softplus, nn.LogSigmoid, nn.Tanhshrink, nn.Softsign,
    nn.Sigmoid, nn.Tanh, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Identity,
    nn.Dropout, nn.Dropout2d,
}  # fmt: skip
