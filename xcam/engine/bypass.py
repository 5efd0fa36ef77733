"""What of the image goes around a layer, and the sentence that says so."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator

from torch import Tensor, nn

from xcam.core import Headed
from xcam.engine.dataflow import depends_around
from xcam.engine.paths import reach_edges
from xcam.engine.search import Search, search_first_image, search_on_meta
from xcam.engine.structure import remember, walk
from xcam.engine.trace import Call, Edge
from xcam.engine.wrappers import describe_compiled, unwrap

__all__ = ["describe_bypass", "describe_stream"]


def describe_stream(model: nn.Module, images: Tensor, layer: nn.Module) -> str | None:
    """Describe a stream of the image around a layer that the user has named; None if none is found.

    That a residual or another branch goes around it is what the user has asked for. A stream is a
    way from the image to the scores that shares no weights with the ways that lead to the layer:
    the other picture of a pair, the depth of RGB-D, another net of an ensemble.

    Whether a net may have streams is searched once for images of a size: in most nets every path
    passes the first convolution, which the meta device shows without a pass of the model.

    Args:
        model: The classifier, in any wrapper.
        images: (B, C, H, W), what `model` takes.
        layer: A module of it.
    """
    net = unwrap(model)
    size = (images.shape[1:], images.dtype, images.device)
    if not remember(net, ("streams", size), lambda: _has_streams(net, images)):
        return None
    name = next(name for name, module in net.named_modules() if module is layer)
    return remember(net, ("stream", size, name), lambda: _find_stream(net, images, name))


def _has_streams(net: nn.Module, images: Tensor) -> bool:
    """Return whether a path to the scores may bypass the first layer, or this has two images."""
    # An attached head may look at the image by itself; what is compiled hides its layers.
    if any(isinstance(module, Headed) or describe_compiled(module) for module in walk(net)):
        return False
    search = search_on_meta(net, images) or search_first_image(net, images, ())
    first = next((call for call in search.calls if call.edges and _has_matrix(call)), None)
    # No layer has a graph, which shows nothing; or only a callable target knows what it reads.
    if first is None or len(search.scores) > 1:
        return False
    if len(first.edges) > 1 or search.goes_around(first.edges):
        return True
    return not search.is_complete and depends_around(net, images, [first.name])


def _has_matrix(call: Call) -> bool:
    """Return whether a module is a layer that mixes channels or cells: no norm, no scale."""
    return any(parameter.ndim > 1 for parameter in call.module.parameters(recurse=False))


def _find_stream(net: nn.Module, images: Tensor, name: str) -> str | None:
    """Describe the stream around a layer; None if none is found."""
    search = search_on_meta(net, images) or search_first_image(net, images, ())
    call = next((call for call in search.calls if call.name == name), None)
    if call is None or not call.edges:
        return None
    passed = [call, *_list_leading(search, call)]
    names = list(dict.fromkeys(one.name for one in passed))
    cut = {edge for one in passed for edge in one.edges}
    # A slice of a batch or of the channels depends on all of it in the graph: values decide.
    if search.is_complete and not search.goes_around(cut):
        return None
    if not depends_around(net, images, names):
        return None

    def holds(*layers: str) -> bool:
        return not depends_around(net, images, layers)

    return describe_bypass(search, f"layer {name!r}", cut, holds, names)


def _list_leading(search: Search, call: Call) -> Iterator[Call]:
    """Yield the layers all of whose calls lead to the calls of a module."""
    leading = reach_edges(call.edges)
    for other in search.calls:
        is_layer = other is not call and other.edges and _has_matrix(other)
        if is_layer and leading.issuperset(other.edges):
            yield other


def describe_bypass(
    search: Search,
    what: str,
    cut: Collection[Edge],
    holds: Callable[..., bool],
    names: Collection[str],
) -> str:
    """Describe how the scores bypass a layer, and the remedy.

    Args:
        search: What the graph shows.
        what: The layer, in words.
        cut: Its edges, and those of what leads to it.
        holds: Whether layers of some names hold all that the scores depend on, also without a
            gradient.
        names: Of the layers that have the edges of the cut.
    """
    shared = [one.name for one in search.ranked if not search.goes_around(one.edges)]
    # What holds all without a gradient lies before what does not: two passes for each step.
    first = bisect_left(shared, True, key=holds)
    beside = [one.name for one in search.list_beside(cut)]
    remedy = "use a method that reads no layer, such as 'rise'"
    if first < len(shared):
        remedy = f"name layer={shared[first]!r}, which every path passes, or {remedy}"
    elif beside and holds(*names, *beside):
        remedy = f"explain layer {' and '.join(map(repr, beside))} as well, or {remedy}"
    return (
        f"part of the image's effect on the score bypasses {what}, so its map is incomplete; "
        f"{remedy}"
    )
