"""What autograd's graph does not show: values of the image that are used without a gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from xcam.engine import forward
from xcam.engine.paths import find_scores
from xcam.engine.restore import untouched
from xcam.engine.skeleton import ShapeInference, infer
from xcam.engine.trace import hooks, replace_first
from xcam.engine.wrappers import eager, select_first

__all__ = ["GraphlessUse", "depends_around"]

_FAULTS = (ArithmeticError, AssertionError, LookupError, RuntimeError, ValueError)
_ROUNDING = 1e-5  # of the largest score, by which passes of equal values may differ


class GraphlessUse(ShapeInference):  # type: ignore[no-untyped-call]
    """A block's operations on meta tensors, watched for values that have left the graph.

    An operation counts if it takes what was made from the image and needs no gradient, as behind
    `detach` or inside of `no_grad`. Whether the scores depend on it is not known then.

    Args:
        image: A tensor of the graph.

    Attributes:
        found: There was such an operation.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.found = False
        # Kept alive, so that no other tensor takes an address. On meta they hold no memory.
        self._made = {_locate(image): image}

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        """Run an operation and remember what it made from the image."""
        output = infer(func, args, kwargs or {})
        name = func.overloadpacket.__name__
        if name.endswith("_like") or name.startswith("new_"):  # reads a shape, and no values
            return output
        inputs = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        made = [one for one in inputs if _locate(one) in self._made]
        if made:
            self.found = self.found or not all(one.requires_grad for one in made)
            outputs = (one for one in tree_leaves(output) if isinstance(one, Tensor))
            self._made.update((_locate(one), one) for one in outputs)
        return output


def _locate(tensor: Tensor) -> int:
    """Return what tells a tensor's memory from any other, also on the meta device."""
    return int(tensor.untyped_storage()._cdata)


def depends_around(net: nn.Module, images: Tensor, layers: Sequence[str]) -> bool:
    """Return whether the scores depend on the image by ways around some layers.

    In two passes: of the first image, and of another one for which the layers give what they gave
    before. The scores only differ if they depend on the image by another way, with a gradient or
    without.

    Args:
        net: Without wrappers.
        images: (B, C, H, W).
        layers: The layers' names.
    """
    image = select_first(net, images)
    kept: dict[str, list[Tensor]] = {layer: [] for layer in layers}

    def keep(layer: str, _inputs: object, output: object) -> object:
        return replace_first(output, lambda tensor: _append(kept[layer], tensor))

    def give_back(layer: str, _inputs: object, output: object) -> object:
        again = kept[layer].pop(0) if kept[layer] else None
        return None if again is None else replace_first(output, lambda _: again)

    scores = _run(net, image, layers, keep)
    try:
        others = _run(net, _change(image), layers, give_back)
    except _FAULTS:  # the model takes no such image: it cannot be told
        return False
    if [one.shape for one in scores] != [one.shape for one in others]:
        return True
    return any(_differ(*pair) for pair in zip(scores, others, strict=True))


def _append(kept: list[Tensor], tensor: Tensor) -> Tensor:
    kept.append(tensor.clone())  # the model may write into its own
    return tensor


def _run(
    net: nn.Module, image: Tensor, layers: Sequence[str], change: Callable[[str, Any, Any], object]
) -> list[Tensor]:
    """Return the scores of a pass in which the outputs of some layers are changed."""
    # A restored generator lets both passes draw the same numbers.
    with torch.no_grad(), eager(), untouched(net), ExitStack() as stack:
        for layer in layers:
            module = net.get_submodule(layer)
            stack.enter_context(hooks(module, after=partial(change, layer)))
        return find_scores(forward.call(net, image), len(image))


def _change(image: Tensor) -> Tensor:
    """Return an image with other pixels and another mean, in the same range but for the last."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(image.shape, generator=generator).to(image)
    low, high = image.amin(), image.amax()
    return torch.where(high > low, low + (high - low) * noise**2, image + noise)


def _differ(scores: Tensor, others: Tensor) -> bool:
    difference = (scores.float() - others.float()).abs()
    return not bool((difference <= _ROUNDING * scores.abs().max()).all())
