"""Choosing the layer to explain from a recorded pass."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from xcam.core import Headed
from xcam.engine.bypass import describe_bypass
from xcam.engine.dataflow import depends_around
from xcam.engine.paths import cut_layer
from xcam.engine.search import Search, search_first_image, search_on_meta
from xcam.engine.structure import remember
from xcam.engine.threads import calls_in_threads, describe_threads
from xcam.engine.wrappers import check_layers, describe_compiled, unwrap
from xcam.errors import LayerError

__all__ = ["DefaultLayer", "default_layer", "find_default_layer"]


@dataclass(frozen=True)
class DefaultLayer:
    """The layer to explain when nobody names one; see `default_layer`.

    Attributes:
        name: As in `named_modules()` of the unwrapped model.
        note: What the user should know of it; None if every path from the image to the scores
            passes it.
    """

    name: str
    note: str | None = None


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
    or read from prefix tokens take one more pass, of the first image, and so do models whose scores
    seem to depend on the image by ways around the layer.

    Args:
        model: The classifier, in any wrapper.
        images: (B, C, H, W), what `model` takes.
        without: Names of layers to leave out.

    Returns:
        A name as in `named_modules()` of the unwrapped model.

    Raises:
        LayerError: No module gives such a map, or the model is scripted or traced.
    """
    return find_default_layer(model, images, without).name


def find_default_layer(
    model: nn.Module, images: Tensor, without: Collection[str] = ()
) -> DefaultLayer:
    """Choose the layer to explain, and say what it leaves out; see `default_layer`.

    A net is searched once for images of a size, and again after a change of how it is built.
    """
    net = unwrap(model)
    check_layers(net)
    size = (images.shape[1:], images.dtype, images.device)
    key = ("default layer", size, frozenset(without))
    return remember(net, key, lambda: _search_net(net, images, without))


def _search_net(net: nn.Module, images: Tensor, without: Collection[str]) -> DefaultLayer:
    heads = {*_inside_heads(net)}
    without = {*without, *heads}
    search = search_on_meta(net, images, without)
    if search is None or not search.ranked or search.ranked[0].layout.prefix:
        search = search_first_image(net, images, without)
    if not search.ranked or search.unclear:
        raise _make_no_map_error(net, images, without, search)
    # Prefix tokens bring what they know of the image past any layer of patches, and an attached
    # head may look at the image by itself.
    by_design = search.ranked[0].layout.prefix or heads
    if by_design:
        return DefaultLayer(search.ranked[0].name)
    return _check_values(net, images, search)


def _inside_heads(net: nn.Module) -> Iterator[str]:
    """Yield the names of the modules of heads: what they read is not what the classifier reads."""
    for name, module in net.named_modules():
        if isinstance(module, Headed):
            prefix = f"{name}.head" if name else "head"
            yield from (inner for inner, _ in module.head.named_modules(prefix=prefix))


def _make_no_map_error(
    net: nn.Module, images: Tensor, without: Collection[str], search: Search
) -> LayerError:
    """Return the error for a net in which no layer clearly gives a map, with a tried remedy."""
    for name, module in net.named_modules():
        if describe_compiled(module):
            check_layers(net, name)
        if ".quantized." in type(module).__module__:
            return LayerError(
                f"{name!r} of the model is quantized ({type(module).__name__}), and no layer gives "
                "a map in floating point; explain the model that it was quantized from, or use a "
                "method that reads no layer, such as 'rise'"
            )
    if calls_in_threads(net, images):
        return LayerError(describe_threads(f"{type(net).__name__} runs its layers"))
    size = None if search.ranked else _find_larger_size(net, images, without)
    remedy = f"use larger images, such as {size}, or " if size else "use "
    if search.ranked:
        remedy = f"name a layer that can be read, such as layer={search.ranked[0].name!r}, or use "
    fault = f"no layer of {type(net).__name__} gives a map of more than one cell"
    return LayerError(
        f"{search.unclear or fault} for images of shape {tuple(images.shape)}; {remedy}a method "
        "that reads no layer, such as 'rise'"
    )


def _find_larger_size(net: nn.Module, images: Tensor, without: Collection[str]) -> str | None:
    """Return a size of images for which a layer gives a map; None if no larger ones help."""
    for factor in (2, 4, 8, 16, 32):
        probe = images[:1].to("meta").repeat(1, 1, factor, factor)
        search = search_on_meta(net, probe, without)
        if search is not None and search.ranked and not search.unclear:
            return f"{probe.shape[2]}x{probe.shape[3]}"
    return None


def _check_values(net: nn.Module, images: Tensor, search: Search) -> DefaultLayer:
    """Choose the first layer that depends on the first image by its values, and say what it lacks.

    What a graph shows may be nothing: a slice of a batch depends on all of it there. And it may
    lack ways that keep no gradient.
    """

    def holds(*layers: str) -> bool:
        return search.is_complete or not depends_around(net, images, layers)

    chosen, is_around = search.ranked[0], False
    if search.goes_around(chosen.edges):
        for layer in search.ranked:
            cut = cut_layer(net, layer.name, images)
            if cut.calls:
                chosen, is_around = layer, cut.around
                break
    name = chosen.name
    if not is_around and holds(name):
        return DefaultLayer(name)
    what = f"the default layer {name!r}"
    return DefaultLayer(name, describe_bypass(search, what, chosen.edges, holds, [name]))
