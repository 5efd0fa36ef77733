"""Unwrapping a model, and finding its layers by name."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias, TypeGuard

import torch
from torch import Tensor, nn

from xcam.errors import LayerError, UnknownNameError

__all__ = [
    "Layer",
    "check_all_layers",
    "check_layers",
    "describe_compiled",
    "eager",
    "find_batch_size",
    "find_module",
    "select_first",
    "unwrap",
]

Layer: TypeAlias = str | nn.Module | Sequence[str | nn.Module]


def unwrap(model: nn.Module) -> nn.Module:
    """Return the net inside `DataParallel`, `DistributedDataParallel` and compiled wrappers."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        inner = model.module if isinstance(model, parallel) else getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def eager() -> AbstractContextManager[object]:
    """Run compiled code eagerly inside a block: what was compiled without hooks would skip them."""
    if "torch._dynamo" not in sys.modules:  # nothing can be compiled, and its import takes seconds
        return nullcontext()
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


def describe_compiled(module: nn.Module) -> str | None:
    """Return in a word why torch calls no hooks inside a module; None if it calls them."""
    if isinstance(module, torch.jit.ScriptModule):
        return "scripted or traced"
    return "exported" if _is_exported(module) else None


def check_layers(net: nn.Module, layer: str = "") -> None:
    """Refuse a net whose layers cannot be read.

    Args:
        net: Without wrappers.
        layer: The name of the layer to read; also the modules that hold it are checked.

    Raises:
        LayerError: One is scripted, traced, frozen or exported, so that torch calls no hooks in it.
    """
    parts = layer.split(".")
    for name in ("", *(".".join(parts[: depth + 1]) for depth in range(len(parts)))):
        module = net.get_submodule(name) if name else net
        kind = describe_compiled(module)
        if kind:
            which = repr(name) if name else "the model"
            raise LayerError(
                f"{which} is {kind} ({type(module).__name__}), and its layers cannot be read; "
                "explain the nn.Module that it was made from, or use a method that reads no layer, "
                "such as 'rise'"
            )


def check_all_layers(net: nn.Module) -> None:
    """Refuse a net, without wrappers, of which any layer cannot be read; see `check_layers`."""
    for name, module in net.named_modules():
        if describe_compiled(module):
            check_layers(net, name)


def find_batch_size(model: object) -> int | None:
    """Return the number of images that a model was exported with; it may take no other.

    None for a model that was not exported.
    """
    if not isinstance(model, nn.Module):
        return None
    for module in model.modules():
        for node in module.graph.nodes if _is_exported(module) else ():
            shape: Sequence[object] = getattr(node.meta.get("val"), "shape", ())
            first = shape[0] if node.op == "placeholder" and len(shape) == 4 else None
            if isinstance(first, int):
                return first
            if isinstance(first, torch.SymInt):  # between bounds, the example's number among them
                hint = getattr(first.node, "hint", None)
                return hint if isinstance(hint, int) else 1
    return None


def select_first(net: nn.Module, images: Tensor) -> Tensor:
    """Return the first image, as often as a net takes that was exported for a number of images."""
    return images[:1].detach().expand(find_batch_size(net) or 1, -1, -1, -1)


def _is_exported(module: nn.Module) -> TypeGuard[torch.fx.GraphModule]:
    """Return whether a module holds a graph of operations, as `torch.export` makes it."""
    return isinstance(module, torch.fx.GraphModule) and any(
        isinstance(node.target, torch._ops.OpOverload) for node in module.graph.nodes
    )


def find_module(model: nn.Module, layer: Layer) -> tuple[str, nn.Module]:
    """Return the name and the module of a layer.

    Args:
        model: The classifier, in any wrapper.
        layer: The layer's name or module, or a sequence of one of these. Names that begin at a
            wrapper, such as `"module.layer4"`, are understood, and so are those of the net that a
            `Normalized` holds as its `model`.

    Returns:
        The name in the net inside the wrappers, and the module.

    Raises:
        TypeError: `layer` is neither a name nor a module.
        UnknownNameError: The model has no such layer; the nearest names are listed.
        LayerError: No layer or more than one, a module that is not part of the model, or a model
            whose layers cannot be read.
    """
    net = unwrap(model)
    check_layers(net)
    if isinstance(layer, Sequence) and not isinstance(layer, str):
        if len(layer) != 1:
            raise LayerError(f"give one layer a call, got {len(layer)}; explain once for each")
        layer = layer[0]
    if isinstance(layer, nn.Module):
        name = _find_name(net, layer)
        check_layers(net, name)
        return name, layer
    if not isinstance(layer, str):
        raise TypeError(f"layer must be a name or a module of the model, got {layer!r}")
    for name in (layer, f"model.{layer}"):
        found = _submodule(net, name)
        if found is not None:
            check_layers(net, name)
            return name, found
    found = _submodule(model, layer)
    if found is not None:
        name = _find_name(net, found)
        check_layers(net, name)
        return name, found
    names = [name for name, _ in net.named_modules() if name]
    near = difflib.get_close_matches(layer, names, n=5, cutoff=0.4) or names[-5:]
    hint = f"the nearest are {', '.join(near)}" if near else "it has no layers with names"
    raise UnknownNameError(f"the model has no layer {layer!r}; {hint}")


def _find_name(net: nn.Module, module: nn.Module) -> str:
    """Return the name of a module inside a net."""
    names: dict[nn.Module, str] = {candidate: name for name, candidate in net.named_modules()}
    if names.get(module):
        return names[module]
    kind = type(module).__name__
    if module is net:
        raise LayerError(f"the layer given is the whole model ({kind}); choose a module inside it")
    raise LayerError(f"the {kind} given as layer is not part of the model; give its name")


def _submodule(model: nn.Module, name: str) -> nn.Module | None:
    """Return the module of a name, also where it has several names; None if there is none."""
    try:
        return model.get_submodule(name) if name else None
    except AttributeError:
        return None
