"""Names to classes, who provided them, and which plugins failed and why."""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
import inspect
import warnings
from collections.abc import Iterable
from typing import Any, TypeVar

import pluggy

from xcam import hookspecs
from xcam.core import Method, MethodSpec, Metric, MetricSpec
from xcam.errors import PluginWarning, UnknownNameError

__all__ = ["Registry", "get_method", "get_metric", "installed", "list_methods", "list_metrics"]

T = TypeVar("T", Method, Metric)
_BASES: dict[str, tuple[type, type]] = {
    "xcam_methods": (Method, MethodSpec),
    "xcam_metrics": (Metric, MetricSpec),
}


class Registry:
    """What the installed packages bring, found through the entry-point group `xcam`.

    Attributes:
        methods: Method classes by name.
        metrics: Metric classes by name.
        owners: For each name, the `distribution:entry point` that brought it.
        failures: For each plugin that could not be used, the reason.
    """

    def __init__(self) -> None:
        """Starts empty; `load` fills it."""
        self.methods: dict[str, type[Method]] = {}
        self.metrics: dict[str, type[Metric]] = {}
        self.owners: dict[str, str] = {}
        self.failures: dict[str, str] = {}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)

    def load(self, entry_points: Iterable[importlib.metadata.EntryPoint]) -> None:
        """Loads plugins one by one, xcam's own first; one that fails harms no other.

        A failure, whatever it is, becomes a `PluginWarning` and an entry in `failures`.
        """
        for entry_point in sorted(entry_points, key=_order):
            owner = _owner(entry_point)
            try:
                self._load(entry_point, owner)
            except (Exception, SystemExit) as error:
                self._manager.set_blocked(owner)
                if self._manager.has_plugin(owner):
                    self._manager.unregister(name=owner)
                self.failures[owner] = " ".join(f"{type(error).__name__}: {error}".split())
                self._warn(f"plugin {owner} is left out: {self.failures[owner]}")

    def plugins(self) -> list[str]:
        """The plugins in use, as `distribution:entry point`."""
        return sorted(name for name, plugin in self._manager.list_name_plugin() if plugin)

    def _load(self, entry_point: importlib.metadata.EntryPoint, owner: str) -> None:
        if self._manager.has_plugin(owner):
            self._warn(f"plugin {owner} is installed twice; the first stays")
            return
        plugin = entry_point.load()
        self._manager.register(plugin, name=owner)
        callers = self._manager.get_hookcallers(plugin) or []
        if not callers:
            raise TypeError(
                f"{entry_point.value} implements no hook; decorate xcam_methods or xcam_metrics "
                "with @xcam.hookimpl"
            )
        for caller in callers:
            if not caller.has_spec():
                near = difflib.get_close_matches(caller.name, _BASES, n=1, cutoff=0)[0]
                raise TypeError(f"there is no hook {caller.name!r}; did you mean {near!r}?")
        found = [
            (caller.name, _checked(caller.name, implementation.function()))
            for caller in callers
            for implementation in caller.get_hookimpls()
            if implementation.plugin is plugin
        ]
        for hook, classes in found:
            for cls in classes:
                self._add(hook, cls, owner)

    def _add(self, hook: str, cls: Any, owner: str) -> None:  # noqa: ANN401
        name = cls.spec.name
        names: dict[str, Any] = self.methods if hook == "xcam_methods" else self.metrics
        if name in self.owners:  # methods and metrics share one space of names: `xcam check NAME`
            first = self.owners[name]
            self._warn(f"{name!r} is brought by both {first} and {owner}; that of {first} stays")
            return
        names[name], self.owners[name] = cls, owner

    @staticmethod
    def _warn(sentence: str) -> None:
        warnings.warn(sentence, PluginWarning, stacklevel=4)


def _order(entry_point: importlib.metadata.EntryPoint) -> tuple[bool, str]:
    owner = _owner(entry_point)
    return not owner.startswith(f"{hookspecs.PROJECT}:"), owner


def _owner(entry_point: importlib.metadata.EntryPoint) -> str:
    distribution = entry_point.dist.name if entry_point.dist else "unknown"
    return f"{distribution}:{entry_point.name}"


def _checked(hook: str, classes: object) -> list[Any]:
    """The classes that a hook returned, each a usable one."""
    base, spec = _BASES[hook]
    if not isinstance(classes, list | tuple):
        raise TypeError(f"{hook} must return a list of classes, got {type(classes).__name__}")
    for cls in classes:
        name = getattr(cls, "__name__", repr(cls))
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise TypeError(f"{hook} returned {name}, which is no {base.__name__} subclass")
        if inspect.isabstract(cls):
            missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
            raise TypeError(f"{name} does not implement {missing}")
        if not isinstance(getattr(cls, "spec", None), spec):
            raise TypeError(f"{name} has no `spec`, which must be a {spec.__name__}")
        options = cls.__dict__.get("__dataclass_params__")
        if options is None or not options.frozen:
            raise TypeError(f"{name} must be decorated with @dataclass(frozen=True)")
    return list(classes)


@functools.cache
def installed() -> Registry:
    """The registry of this process; discovery happens here, at the first look-up."""
    found = Registry()
    found.load(importlib.metadata.entry_points(group=hookspecs.PROJECT))
    return found


def list_methods() -> list[str]:
    """The names of all methods, sorted."""
    return sorted(installed().methods)


def list_metrics() -> list[str]:
    """The names of all metrics, sorted."""
    return sorted(installed().metrics)


def get_method(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        UnknownNameError: There is none of this name; near names and failed plugins are listed.
    """
    return _look_up("method", installed().methods, name)


def get_metric(name: str) -> type[Metric]:
    """The class of a metric.

    Raises:
        UnknownNameError: There is none of this name; near names and failed plugins are listed.
    """
    return _look_up("metric", installed().metrics, name)


def _look_up(kind: str, names: dict[str, type[T]], name: str) -> type[T]:
    if name in names:
        return names[name]
    near = difflib.get_close_matches(str(name).lower().replace("-", ""), names, n=4, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(sorted(names))}"
    failed = "; ".join(f"{owner} failed: {why}" for owner, why in installed().failures.items())
    raise UnknownNameError(f"no {kind} {name!r}: {hint}" + (f" ({failed})" if failed else ""))
