"""The layers of a model from the image to the scores, and a copy of it with random weights."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from xcam._explain.prepared import Prepared, prepare
from xcam.core import Method, Target
from xcam.engine import unwrap
from xcam.engine.search import search_first_image, search_on_meta
from xcam.engine.shared import keep_nothing, shareable
from xcam.engine.structure import remember
from xcam.errors import ModelOutputError
from xcam.imaging import make_generator
from xcam.metrics.explaining import explain_prepared

__all__ = ["RandomizedModel", "duplicate", "explain_randomized", "list_layers"]


@dataclass(frozen=True, eq=False)
class RandomizedModel:
    """A model, some of whose layers have the weights that they are made with.

    A layer is a module that holds weights itself. It is made anew by its `reset_parameters`, which
    all layers of torch have; weights that this leaves alone are permuted, and those of a layer
    whose `reset_parameters` takes arguments. Each layer is drawn from the seed and its place among
    the layers, whatever else is random. The model itself stays as it is: there is one copy of it,
    made when it is first needed.

    Attributes:
        model: The classifier.
        images: (B, C, H, W), of which the shape matters alone.
        method: What explains it.
        seed: Of the weights.
    """

    model: nn.Module
    images: Tensor
    method: Method
    seed: int

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Return the names of all layers, from the image to the scores."""
        return list_layers(unwrap(self.model), self.images)

    def prepare(self, names: Collection[str]) -> Prepared:
        """Return the method, ready to explain the copy, in which these layers alone are random."""
        given, prepared, random = unwrap(self.model), *self._copy
        # Also under the caller's inference mode.
        with torch.inference_mode(False), torch.no_grad():
            for place, name in enumerate(self.layers):
                layer = prepared.model.get_submodule(name)
                if name in names and name not in random:
                    _randomize(layer, make_generator(self.seed, place).initial_seed())
                elif name in random and name not in names:
                    for tensor, values in zip(
                        _list_own(layer), _list_own(given.get_submodule(name)), strict=True
                    ):
                        tensor.copy_(values)
        random.clear()
        random.update(names)
        return prepared

    @cached_property
    def _copy(self) -> tuple[Prepared, set[str]]:
        """Return the method, ready to explain a copy of the model, and which layers are random."""
        with torch.inference_mode(False), torch.no_grad():
            copied = duplicate(unwrap(self.model), _clone)
        return prepare(copied, self.images, self.method), set()


@shareable
def explain_randomized(
    randomized: RandomizedModel,
    names: tuple[str, ...],
    images: Tensor,
    target: Target,
    contrast: Target | None = None,
) -> Tensor:
    """Return the maps (B, H, W) of images by a model of which the named layers are random."""
    with keep_nothing():  # since nobody else explains this copy
        return explain_prepared(randomized.prepare(names), images, target, contrast).maps


def list_layers(net: nn.Module, images: Tensor) -> tuple[str, ...]:
    """List the modules that hold weights themselves, from the image to the scores.

    They come in the order in which a pass calls them; those that it does not call by themselves,
    whose weights another module uses, behind the one that is defined before.

    Raises:
        ValueError: There is none.
    """

    def find() -> tuple[str, ...]:
        search = search_on_meta(net, images) or search_first_image(net, images, ())
        return _sort_layers(net, [call.name for call in search.calls])

    found = remember(net, ("layers with weights", images.shape[1:], images.dtype), find)
    if not found:
        raise ValueError(
            f"the model ({type(net).__name__}) has no weights that could be randomized; leave the "
            "metric out"
        )
    return found


def _sort_layers(net: nn.Module, called: Sequence[str]) -> tuple[str, ...]:
    """Sort the modules that hold weights by the names of the modules in the order of a pass."""
    known, places, place = set[int](), dict[str, int](), 0
    for name, module in net.named_modules():
        weights = {id(weight) for weight in _list_weights(module)}
        if weights <= known:  # none, or those of another module
            continue
        known |= weights
        # What a container holds itself belongs to the first of the modules in it that is called.
        inside = (k for k, one in enumerate(called) if f"{one}.".startswith(name and f"{name}."))
        places[name] = place = next(inside, place)
    return tuple(sorted(places, key=places.__getitem__))


def _list_weights(module: nn.Module) -> list[nn.Parameter]:
    """List the floating-point parameters that a module holds itself."""
    own = (parameter for _, parameter in module.named_parameters(recurse=False))
    return [parameter for parameter in own if parameter.is_floating_point()]


def _list_own(module: nn.Module) -> Iterator[Tensor]:
    """Yield the parameters and buffers that a module holds itself."""
    for named in (module.named_parameters(recurse=False), module.named_buffers(recurse=False)):
        yield from (tensor for _, tensor in named)


def duplicate(net: nn.Module, make: Callable[[Tensor], Tensor]) -> nn.Module:
    """Copy a net, with other tensors in place of its parameters and buffers, all frozen.

    Raises:
        ModelOutputError: The net cannot be copied.
    """
    memo: dict[int, object] = {}
    for parameter in net.parameters():
        memo[id(parameter)] = nn.Parameter(make(parameter.detach()), requires_grad=False)
    for buffer in net.buffers():
        memo[id(buffer)] = make(buffer.detach())
    try:
        return copy.deepcopy(net, memo)
    except Exception as error:
        raise ModelOutputError(
            f"the weights of a copy are changed, and copy.deepcopy fails on {type(net).__name__} "
            f"({' '.join(str(error).split()).split('. ')[0]}); remove from its attributes what "
            "cannot be copied, such as activations that a hook has kept, a lock, or the weights of "
            "torch.nn.utils.weight_norm, by remove_weight_norm"
        ) from error


def _clone(tensor: Tensor) -> Tensor:
    """Copy a tensor, on a CPU in the layout of the passes there."""
    if tensor.ndim == 4 and tensor.device.type == "cpu":
        # Weights in another one are converted in each pass, which takes a third of its time.
        return tensor.clone(memory_format=torch.channels_last)
    return tensor.clone()


def _randomize(layer: nn.Module, seed: int) -> None:
    """Give a layer the weights, and statistics, that it would be made with."""
    made = _make_anew(layer, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in layer.named_parameters(recurse=False):
        if name in made:
            weight.copy_(made[name])
        else:
            order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))
    for name, buffer in layer.named_buffers(recurse=False):
        if name in made:
            buffer.copy_(made[name])


def _make_anew(layer: nn.Module, seed: int) -> dict[str, Tensor]:
    """Return what `reset_parameters` writes into a layer itself, on the CPU, by name."""
    names = ("reset_parameters", "_reset_parameters")  # nn.MultiheadAttention's is private
    name = next((name for name in names if hasattr(layer, name)), None)
    if name is None or not _takes_nothing(getattr(layer, name)):
        return {}

    def make(tensor: Tensor) -> Tensor:
        fill = torch.nan if tensor.is_floating_point() else 0  # to see what is written
        return torch.full_like(tensor, fill, device="cpu")

    fresh = duplicate(layer, make)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        getattr(fresh, name)()
    own = [*fresh.named_parameters(recurse=False), *fresh.named_buffers(recurse=False)]
    return {
        name: tensor.detach()
        for name, tensor in own
        if tensor.is_floating_point() and not bool(tensor.isnan().any())
    }


def _takes_nothing(function: Callable[..., object]) -> bool:
    """Return whether a function can be called without arguments."""
    try:
        inspect.signature(function).bind()
    except TypeError:
        return False
    return True
