"""Ranking the maps of a recorded pass: which layers lead to the scores, the best first."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from xcam.engine import forward
from xcam.engine.dataflow import GraphlessUse
from xcam.engine.footprint import keep_footprint
from xcam.engine.hints import LayoutHints, read_hints
from xcam.engine.layout import Layout, describe_readings, find_layout, list_layouts
from xcam.engine.paths import find_nan_gradient, find_scores, reach, reach_edges
from xcam.engine.restore import gradients, rerun_overwritten, untouched
from xcam.engine.skeleton import skeleton
from xcam.engine.trace import Call, Edge, Trace, get_edge, output_tensors, record_pass
from xcam.engine.wrappers import eager, select_first
from xcam.forks import importing

__all__ = ["Candidate", "Search", "search_first_image", "search_on_meta"]

_POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_PASSIVE = (nn.Dropout, nn.Identity, nn.Softmax)  # no layer of its own; softmax: attention matrices


@dataclass(frozen=True, eq=False)
class Candidate:
    """A tensor that holds a map, with the last, outermost module that returned it."""

    call: Call
    tensor: Tensor
    layout: Layout
    second_choice: bool

    @property
    def name(self) -> str:
        """Return the layer's name."""
        return self.call.name

    @property
    def edges(self) -> set[Edge]:
        """Return its places in the graph: as it was returned, and as it is since."""
        return {*self.call.edges, *self.last_edges}

    @property
    def last_edges(self) -> set[Edge]:
        """Return the places of what the last call returned; none if that has no graph."""
        current = get_edge(self.tensor)
        return set() if current is None else {current, *self.call.edges[-1:]}

    def decides(self, scores: Sequence[Tensor]) -> bool:
        """Return whether the scores depend on the map that the last call gave.

        They may depend on its prefix tokens alone, or on an earlier call of a shared layer.
        """
        if self.tensor.is_meta:
            return True  # that they depend on the tensor says the graph
        gradient = find_nan_gradient(scores, self.tensor)
        return gradient is not None and bool(self.layout.read(gradient).isnan().any())


@dataclass(frozen=True, eq=False)
class Search:
    """What was found in a recorded pass.

    Attributes:
        ranked: The layers that lead to the scores, the best first.
        calls: What the modules gave, in the order of return.
        scores: With their graph; none where the model keeps no graph, and any layer may lead there.
        image: The image's place in the graph.
        is_complete: The graph shows all ways from the image to the scores.
        unclear: What a layer behind the best one gives that can be read in two ways; None if none
            does.
    """

    ranked: list[Candidate]
    calls: tuple[Call, ...]
    scores: list[Tensor]
    image: Edge | None
    is_complete: bool = False
    unclear: str | None = None

    def goes_around(self, cut: Collection[Edge]) -> bool:
        """Return whether the scores depend on the image by ways around some edges."""
        return self.image in reach(self.scores, cut)

    def list_beside(self, edges: Collection[Edge]) -> list[Candidate]:
        """List layers that, with the edges given, all ways from the image pass; none if none."""
        beside: list[Candidate] = []
        cut = set(edges)
        while self.goes_around(cut):
            reached = reach(self.scores, cut) - cut
            around = (one for one in self.ranked if one.edges & reached)
            more = next((one for one in around if self.image in reach_edges(one.edges, cut)), None)
            if more is None:
                return []
            beside.append(more)
            cut |= more.edges
        return beside


def search_on_meta(net: nn.Module, images: Tensor, without: Collection[str] = ()) -> Search | None:
    """Search by shapes and the graph alone; None if the model needs values for its pass."""
    shape = select_first(net, images).shape
    probe = torch.empty(shape, dtype=images.dtype, device="meta")
    # Operations on meta tensors import parts of torch.
    with importing(), torch.inference_mode(False), torch.enable_grad(), eager():
        try:
            empty = skeleton(net)
            search = _search_pass(empty, empty, probe, read_hints(net, images.shape[1]), without)
        except Exception:  # whatever the model does that needs values: `.item()`, numpy
            return None
    keep_footprint(net, probe, search.calls)
    return search


def search_first_image(net: nn.Module, images: Tensor, without: Collection[str]) -> Search:
    """Search in a pass of the first image."""
    image, run, hints = (
        select_first(net, images),
        partial(forward.call, net),
        read_hints(net, images.shape[1]),
    )
    if any(tensor.is_inference() for tensor in [*net.parameters(), *net.buffers()]):
        with torch.inference_mode(False):  # its copy keeps a graph
            net = copy.deepcopy(net)
        run = partial(forward.call, net)
    try:
        with gradients(net), eager(), untouched(net):
            return rerun_overwritten(lambda: _search_pass(net, run, image, hints, without))
    except RuntimeError:  # it runs only without a graph, or cannot be differentiated
        with torch.no_grad(), eager(), untouched(net):
            return _search_pass(net, run, image, hints, without)


def _search_pass(
    net: nn.Module,
    run: Callable[[Tensor], Any],
    image: Tensor,
    hints: LayoutHints,
    without: Collection[str],
) -> Search:
    """Record a pass, with a graph from the image on where there can be one; rank its maps."""
    leaf = image.clone().requires_grad_(torch.is_grad_enabled())
    given = leaf.clone()  # no leaf: the model may write into it
    watch = GraphlessUse(given) if image.is_meta else None
    with watch or nullcontext():
        passed = record_pass(net, given, run)
    ranked = _list_candidates(passed, hints, without)[::-1]
    ranked.sort(key=lambda candidate: candidate.second_choice)
    scores = [score for score in find_scores(passed.output, len(image)) if score.requires_grad]
    if scores:
        reached = reach(scores)
        ranked = [candidate for candidate in ranked if candidate.edges & reached]
        # Of a shared layer the last call counts first, which is where its place in the order is.
        ranked.sort(key=lambda layer: (layer.second_choice, not layer.last_edges & reached))
        if ranked and ranked[0].layout.prefix:
            # Where no gradient comes back, as through quantized layers, the graph alone decides.
            deciding = (i for i, layer in enumerate(ranked) if layer.decides(scores))
            ranked = ranked[next(deciding, 0) :]
    is_complete = watch is not None and not watch.found
    unclear = _describe_unclear(passed, hints, without, ranked[0] if ranked else None)
    return Search(ranked, passed.calls, scores, get_edge(leaf), is_complete, unclear)


def _describe_unclear(
    passed: Trace, hints: LayoutHints, without: Collection[str], best: Candidate | None
) -> str | None:
    """Describe the output behind the best candidate that can be read in two ways; None if none."""
    scores = find_scores(passed.output, len(passed.images))
    reached = reach([one for one in scores if one.requires_grad])
    for call in reversed(passed.calls):
        if best is not None and call is best.call:
            return None
        is_left_out = call.name in without or isinstance(call.module, _PASSIVE)
        if call.tensor is None or is_left_out or (reached and reached.isdisjoint(call.edges)):
            continue
        shape, images = call.tensor.shape, passed.images.shape
        readings = describe_readings(list_layouts(shape, images, hints, call.module))
        if readings:
            return f"the output of layer {call.name!r}, of shape {tuple(shape)}, {readings}"
    return None


def _list_candidates(
    passed: Trace, hints: LayoutHints, without: Collection[str]
) -> list[Candidate]:
    """List the tensors that hold maps, without what pooling returned, in the order of return."""
    calls = [call for call in passed.calls if not isinstance(call.module, _PASSIVE)]
    outputs = [(call, call.tensor) for call in calls if call.tensor is not None]
    pooled = {id(tensor) for call, tensor in outputs if isinstance(call.module, _POOLING)}
    weighted = [i for i, (call, _) in enumerate(outputs) if _has_weights(call)]
    last_weights = weighted[-1] if weighted else 0
    # A norm makes features, not scores: a net that ends in one gives embeddings.
    ends_in_norm = bool(weighted) and "Norm" in type(outputs[last_weights][0].module).__name__
    scores = find_scores(passed.output, len(passed.images))
    num_classes = next((score.shape[1] for score in scores if score.ndim > 1), None)
    candidates: dict[int, Candidate] = {}
    for index, (call, tensor) in enumerate(outputs):
        layout = find_layout(tensor.shape, passed.images.shape, hints, call.module)
        if layout is None or layout.order == "NCL" or id(tensor) in pooled or call.name in without:
            continue
        channels = tensor.shape[1 if layout.order == "NCHW" else -1]
        class_maps = index >= last_weights and channels == num_classes and not ends_in_norm
        second_choice = class_maps or _projects_tokens(call.module, layout)
        if id(tensor) in candidates and len([*output_tensors(call.output)]) > 1:
            continue  # of what it returns, another tensor may be the one that is read
        candidates.pop(id(tensor), None)  # the last, outermost module that returns it names it
        candidates[id(tensor)] = Candidate(call, tensor, layout, second_choice)
    return list(candidates.values())


def _has_weights(call: Call) -> bool:
    """Return whether a module is a single operation with weights.

    Its parts, such as the activation that some norms hold, have none.
    """
    if next(call.module.parameters(), None) is None:
        return False
    return all(next(part.parameters(), None) is None for part in call.module.children())


def _projects_tokens(module: nn.Module, layout: Layout) -> bool:
    """Return whether a module is a part of an attention or a perceptron: no block, and no norm."""
    leaf = next(module.children(), None) is None
    return leaf and layout.order == "tokens" and "Norm" not in type(module).__name__
