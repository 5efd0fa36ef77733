"""Which tensors the scores of a pass depend on, and by which ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from xcam.core import extract_logits
from xcam.engine import forward
from xcam.engine.restore import gradients, rerun_overwritten, untouched
from xcam.engine.skeleton import ShapeInference, skeleton
from xcam.engine.trace import Edge, get_edge, hooks, output_tensors, replace_first
from xcam.engine.wrappers import eager, select_first
from xcam.errors import ModelOutputError
from xcam.forks import importing

__all__ = [
    "Cut",
    "RepeatedLayer",
    "copy_leaf",
    "cut_layer",
    "find_nan_gradient",
    "find_scores",
    "reach",
    "reach_edges",
]

Run: TypeAlias = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Cut:
    """What the scores depend on when the graph is cut at each call of a layer.

    Attributes:
        around: The scores depend on the image by a way around the layer.
        calls: The calls, from 0, that depend on the image and reach the scores without another call
            on the way. None of them if that cannot be told: the model keeps no graph.
        fed: All calls that depend on the image.
    """

    around: bool = False
    calls: tuple[int, ...] = ()
    fed: tuple[int, ...] = ()


@dataclass(frozen=True)
class RepeatedLayer:
    """A captured layer that is called several times in a pass.

    Attributes:
        times: How often it is called.
        cut: What the scores depend on when the graph is cut there.
    """

    times: int
    cut: Cut = Cut()

    @property
    def call(self) -> int:
        """Return which call is read, from 0."""
        return self.cut.calls[-1] if self.cut.calls else self.times - 1

    def describe(self, layer: str, is_default: bool) -> str | None:
        """Return what the user should know; None if the call that is read is what was meant.

        Args:
            layer: The layer's name.
            is_default: Nobody has named it: `default_layer` has chosen it.
        """
        times = f"layer {layer!r} is called {self.times} times in a forward pass"
        if len(self.cut.calls) > 1:
            calls = ", ".join(str(call + 1) for call in self.cut.calls)
            return (
                f"{times}, and the score depends on the image through calls {calls}; the map is of "
                f"call {self.call + 1} alone. If each call has an image of its own, bind the others"
                " in a wrapper and explain one at a time; or use a method that reads no layer, "
                "such as 'rise'"
            )
        if is_default or len(self.cut.fed) == 1:
            return None
        which = "the last call" if self.call == self.times - 1 else f"call {self.call + 1}"
        return f"{times}; the map is of {which}"


def find_scores(output: object, rows: int) -> list[Tensor]:
    """List what may be explained in an output: the logits, or else each floating-point tensor."""
    try:
        return [extract_logits(output, rows)]
    except ModelOutputError:
        return list(output_tensors(output))


def reach(tensors: Sequence[Tensor], cut: Collection[Edge] = ()) -> set[Edge]:
    """Return the edges of autograd's graph that lead to some tensors, but for what a cut hides.

    Edges of the cut are reached themselves, and nothing before them. What is found may still have
    a gradient of zero: a slice of a tensor depends on all of it here.
    """
    return reach_edges((edge for tensor in tensors if (edge := get_edge(tensor)) is not None), cut)


def reach_edges(edges: Iterable[Edge], cut: Collection[Edge] = ()) -> set[Edge]:
    """Return the edges that lead to some edges, and these themselves; see `reach`."""
    reached: set[Edge] = set()
    waiting = [*edges]
    while waiting:
        edge = waiting.pop()
        if edge in reached:
            continue
        reached.add(edge)
        if edge not in cut:
            waiting += [(node, number) for node, number in edge[0].next_functions if node]
    return reached


def find_nan_gradient(scores: Sequence[Tensor], tensor: Tensor) -> Tensor | None:
    """Return where a tensor decides any of the scores, as NaN; None if it has no gradient.

    With NaN as the scores' gradients, the gradient is NaN in each cell that they depend on, also
    through weights that are zero, such as those of a new head, and zero in all others.
    """
    graphs = [score for score in scores if score.requires_grad]
    if not graphs or not tensor.requires_grad:
        return None
    nans = [torch.full_like(score, math.nan) for score in graphs]
    # The NaNs are meant: a user's search for anomalies would take them for a fault.
    with torch.autograd.set_detect_anomaly(False):
        (gradient,) = torch.autograd.grad(
            graphs, tensor, nans, retain_graph=True, allow_unused=True
        )
    return gradient


def cut_layer(net: nn.Module, layer: str, images: Tensor) -> Cut:
    """Cut the graph at a layer: on the meta device, and on the first image where that leaves doubt.

    Args:
        net: Without wrappers.
        layer: The layer's name.
        images: (B, C, H, W).
    """
    image = select_first(net, images)
    probe = torch.empty(image.shape, dtype=images.dtype, device="meta")
    try:
        with importing(), torch.inference_mode(False), torch.enable_grad(), eager():
            empty = skeleton(net)
            with ShapeInference():
                cut = _run_cut(empty.get_submodule(layer), empty, probe)
    except Exception:  # whatever the model does that needs values
        cut = None
    if cut is not None and not cut.around and len(cut.calls) == 1:
        return cut
    try:
        with gradients(net), eager(), untouched(net):
            module = net.get_submodule(layer)
            return rerun_overwritten(lambda: _run_cut(module, partial(forward.call, net), image))
    except (ModelOutputError, RuntimeError):  # no gradients: what the graph alone says stands
        return cut or Cut()


def _run_cut(module: nn.Module, run: Run, image: Tensor) -> Cut:
    """Run one image with the graph cut at each call of a module, and say what led to the scores.

    Meta tensors have no values: there all that a tensor was made from counts.
    """
    image = image.clone().requires_grad_()
    returned: list[Tensor] = []
    leaves: list[Tensor] = []

    def start_graph(tensor: Tensor) -> Tensor:
        returned.append(tensor)
        leaf, twin = copy_leaf(tensor, grad=True)
        leaves.append(leaf)
        return twin

    with hooks(module, after=lambda _, output: replace_first(output, start_graph)):
        scores = find_scores(run(image.clone()), len(image))
    seen: list[Tensor] = [image]  # and the leaves of calls that depend on it
    calls, fed = [], []
    for number, (tensor, leaf) in enumerate(zip(returned, leaves, strict=True)):
        if any(_depends([tensor], source) for source in seen):
            seen.append(leaf)
            fed.append(number)
            if _depends(scores, leaf):
                calls.append(number)
    return Cut(_depends(scores, image), tuple(calls), tuple(fed))


def _depends(tensors: Sequence[Tensor], source: Tensor) -> bool:
    """Return whether any of the tensors depends on any cell of a leaf."""
    if get_edge(source) not in reach(tensors):
        return False
    if source.is_meta:
        return True
    gradient = find_nan_gradient(tensors, source)
    return gradient is not None and bool(gradient.isnan().any())


def copy_leaf(tensor: Tensor, grad: bool) -> tuple[Tensor, Tensor]:
    """Return a tensor as a leaf of the graph, and the copy of it that the model goes on with.

    An in-place ReLU behind the layer changes the copy alone. Made outside of any inference mode
    that the model may have entered by itself: no leaf can be there.
    """
    with torch.inference_mode(False), torch.set_grad_enabled(grad):
        leaf = tensor.clone() if tensor.is_inference() else tensor
        leaf = leaf.detach().requires_grad_(grad)
        return leaf, leaf.clone()
