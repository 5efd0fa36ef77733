"""Remembering what a search found out about a net, for as long as the net is built the same.

Values of weights, modes and `requires_grad` make no difference: a net may be trained or loaded with
other weights in between. Compared are the modules and their classes, hooks, a patched `forward`,
attributes and what the objects among them hold, such as a config, and the shapes of parameters and
buffers. What lies deeper is not, nor are other methods that are patched on a class, global hooks,
and what modules in a plain list hold: whoever finds that a result is wrong calls `forget`.
"""

from __future__ import annotations

import operator
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["compare_once", "forget", "list_tensors", "remember", "walk"]

T = TypeVar("T")

_PLAIN: frozenset[type] = frozenset(
    {type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size}
)
_CONTAINERS: frozenset[type] = frozenset({dict, OrderedDict, list, tuple, set, frozenset})
# What every module has: its tensors, children, and hooks on its calls.
_OWN = [*nn.Module().__dict__]
_get_hooks = operator.itemgetter(
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_DEPTH = 4  # of containers inside containers; what lies deeper is compared by identity


def remember(net: nn.Module, key: Hashable, find: Callable[[], T]) -> T:
    """Return what `find` gives, calling it only once for a net that has not changed since.

    Args:
        net: What is searched. It is known by identity, since modules may define `==`, and referred
            to weakly; a copy is another net.
        key: What the result depends on beside the net, such as the question and the images' shape.
        find: Makes the result, which must not refer to the net.
    """
    found, compared = _known.get(id(net)), _compared.get()
    is_compared = compared is not None and id(net) in compared
    if found is None or found.net() is not net or not (is_compared or found.fits(net)):
        found = _known[id(net)] = _Found(net)
    if compared is not None:
        compared.add(id(net))
    if key not in found.results:
        found.results[key] = find()
    result: T = found.results[key]  # type: ignore[assignment]
    return result


def forget(net: nn.Module) -> None:
    """Forget what was found out about a net, so that it is searched anew."""
    _known.pop(id(net), None)


@contextmanager
def compare_once() -> Iterator[None]:
    """Compare each net only once inside a block in which nets do not change, and are kept alive."""
    token = _compared.set(set())
    try:
        yield
    finally:
        _compared.reset(token)


_compared: ContextVar[set[int] | None] = ContextVar("xcam_compared", default=None)


class _Found:
    """The results for a net, and how it was built.

    Plain values are compared by value; modules, functions and other objects by identity. Of these
    it keeps weak references: strong ones could keep the net alive, and the mere address of an
    object that is gone may be another's.
    """

    def __init__(self, net: nn.Module) -> None:
        number = id(net)
        self.net = weakref.ref(net, lambda _: _known.pop(number, None))
        self.results: dict[Hashable, object] = {}
        self._addresses = _list_addresses(net)
        self._values, objects = _describe(net)
        self._references = [_refer(item) for item in objects]

    def fits(self, net: nn.Module) -> bool:
        """Return whether the net is still built in the same way."""
        # Describing takes ten times as long as this, in which anything that was assigned shows.
        addresses = _list_addresses(net)
        if addresses is not None and addresses == self._addresses:
            return all(reference() is not None for reference in self._references)
        values, objects = _describe(net)
        if values != self._values or len(objects) != len(self._references):
            return False
        pairs = zip(self._references, objects, strict=True)
        if any(reference() is not item for reference, item in pairs):
            return False
        self._addresses, self._values = addresses, values
        return True


_known: dict[int, _Found] = {}


def walk(net: nn.Module) -> Iterator[nn.Module]:
    """Yield each module once, as `net.modules()` does, in a fraction of its time."""
    seen, pending = {id(net)}, [net]
    while pending:
        module = pending.pop()
        yield module
        for child in module._modules.values():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                pending.append(child)


def list_tensors(net: nn.Module) -> list[Tensor]:
    """List the parameters and buffers of a net, those that it shares several times."""
    return [
        tensor
        for module in walk(net)
        for tensors in (module._parameters, module._buffers)
        for tensor in tensors.values()
        if tensor is not None
    ]


def _list_addresses(net: nn.Module) -> list[object] | None:
    """List names, addresses and shapes of all that a net holds; None if it nests containers."""
    found: list[object] = []
    opened: set[int] = set()
    for module in walk(net):
        attributes, kind = module.__dict__, module.__class__
        found += attributes
        found += (id(module), id(kind), id(getattr(kind, "forward", kind)))
        for tensors in (attributes.get("_parameters"), attributes.get("_buffers")):
            if tensors and tensors.__class__ is dict:  # scripted modules have something else
                found += tensors
                found += [tensor if tensor is None else tensor.shape for tensor in tensors.values()]
        children: Any = module._modules
        if not isinstance(children, dict):  # of scripted modules, which find no children by number
            children = dict(children.items())
        containers = [one for one in (children, *_get_hooks(attributes)) if one]
        found += _list_attributes(attributes, containers, opened)
        for container in containers:
            items: Any = container
            if isinstance(container, dict):
                found += container
                items = container.values()
            if not _CONTAINERS.isdisjoint(map(type, items)):
                return None
            found += map(id, items)
    return found


def _list_attributes(
    attributes: dict[str, Any], containers: list[Any], opened: set[int]
) -> list[object]:
    """List the addresses of what a module was given, and of what the objects among it hold.

    Args:
        attributes: Of the module.
        containers: To which those among the attributes are added.
        opened: The addresses of objects that other modules hold, too; these are added.
    """
    # What every module has comes first, unless it was given something before its __init__.
    first = len(_OWN) if [*islice(attributes, len(_OWN))] == _OWN else 0
    given = [*islice(attributes.values(), first, None)]
    found: list[object] = [*map(id, given)]
    for value in given:
        kind = value.__class__
        if kind in _PLAIN:
            continue
        if kind in _CONTAINERS:
            if value:
                containers.append(value)
        elif id(value) not in opened:
            opened.add(id(value))
            if isinstance(value, Tensor):  # another one may be at the same address
                found.append(value.shape)
            held = _list_fields(value)
            found += held
            found += map(id, held.values())
    return found


def _list_fields(value: object) -> dict[str, Any]:
    """Return what an object holds, such as a config; nothing of modules and of plain values."""
    held = getattr(value, "__dict__", None)
    is_module = isinstance(value, nn.Module | ModuleType)
    return {} if is_module or not isinstance(held, dict) else held


def _describe(net: nn.Module) -> tuple[list[object], list[object]]:
    """Return the plain values that a net holds, and the other objects."""
    values: list[object] = []
    objects: list[object] = []

    def add(value: Any, depth: int) -> None:  # noqa: ANN401
        if value.__class__ in _PLAIN:
            values.append(value)
        elif isinstance(value, Tensor):
            values.append(value.shape)  # not the tensor itself: nets keep some of their last pass
        elif value.__class__ in _CONTAINERS and depth:
            names, items = _open_container(value)
            values.extend((len(items), *names))
            for item in items:
                add(item, depth - 1)
        else:
            objects.append(value)
            held = _list_fields(value) if depth else {}
            values.extend(held)
            for one in held.values():
                add(one, 0)

    for module in walk(net):
        objects.extend((module, type(module), getattr(type(module), "forward", type(module))))
        for name, value in module.__dict__.items():
            if name != "training":
                values.append(name)
                add(value, _DEPTH)
    return values, objects


def _open_container(container: Any) -> tuple[list[object], list[object]]:  # noqa: ANN401
    """Return the keys of a dict, plain ones by value, and the items of a container."""
    if not isinstance(container, dict):
        return [], [*container]
    keys = [key if key.__class__ in _PLAIN else id(key) for key in container]
    return keys, [*container.values()]


def _refer(item: object) -> Callable[[], object]:
    try:
        return weakref.ref(item)
    except TypeError:  # an object without a place for weak references: no module, no function
        return lambda: item
