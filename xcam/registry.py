"""Methods, metrics and nets by name: who provides them, and which plugins failed and why."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib.metadata
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from xcam import hookspecs
from xcam.core import Method, MethodSpec, Metric, MetricSpec
from xcam.core.settings import OptionalPreset
from xcam.errors import PluginWarning, UnknownNameError, warn
from xcam.forks import importing

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "Registry",
    "find_name",
    "get_method",
    "get_metric",
    "installed",
    "list_methods",
    "list_metrics",
    "make_base",
    "make_method",
    "simplify",
]

T = TypeVar("T", Method, Metric)
_BASES: dict[str, tuple[type, type]] = {
    "xcam_methods": (Method, MethodSpec),
    "xcam_metrics": (Metric, MetricSpec),
}
_HOOKS = (*_BASES, "xcam_models")
_NET = re.compile(r"[\w.-]+:[\w.-]+", re.ASCII)
_RESERVED = {"timm", "torchvision", hookspecs.PROJECT}


class Registry:
    """Methods, metrics and nets of the installed packages, found by the entry-point group `xcam`.

    Attributes:
        methods: Method classes by name.
        metrics: Metric classes by name.
        models: What makes a net, by `"provider:name"`.
        owners: The `distribution:entry point` that provides each name.
        failures: Why each plugin that could not be used failed.
    """

    def __init__(self) -> None:
        """Create an empty registry; `load` fills it."""
        self.methods: dict[str, type[Method]] = {}
        self.metrics: dict[str, type[Metric]] = {}
        self.models: dict[str, Callable[..., nn.Module]] = {}
        self.owners: dict[str, str] = {}
        self.failures: dict[str, str] = {}
        self._spellings: dict[str, str] = {}  # simplified names and aliases to registered names
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)

    def load(self, entry_points: Iterable[importlib.metadata.EntryPoint]) -> None:
        """Load plugins one by one, xcam's own first, so that a failing one harms no other.

        Any failure becomes a `PluginWarning` and an entry in `failures`.
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
        """Return the plugins in use, as `distribution:entry point`."""
        return sorted(name for name, plugin in self._manager.list_name_plugin() if plugin)

    def describe_failures(self) -> str:
        """Return why plugins failed, in parentheses, for messages about unknown names; or ""."""
        failed = "; ".join(f"{owner} failed: {why}" for owner, why in self.failures.items())
        return f" ({failed})" if failed else ""

    def find_name(self, name: str) -> str:
        """Return the registered name that a spelling stands for.

        Case, hyphens, underscores and spaces do not matter, and aliases count: `"Grad-CAM"` is
        `"gradcam"`, `"ig"` is `"integrated_gradients"`. An unknown name is returned unchanged.
        """
        return name if name in self.owners else self._spellings.get(simplify(name), name)

    def _load(self, entry_point: importlib.metadata.EntryPoint, owner: str) -> None:
        if self._manager.has_plugin(owner):
            self._warn(f"plugin {owner} is installed twice; the first stays")
            return
        plugin = entry_point.load()
        self._manager.register(plugin, name=owner)
        callers = self._manager.get_hookcallers(plugin) or []
        if not callers:
            raise TypeError(
                f"{entry_point.value} implements no hook; decorate xcam_methods, xcam_metrics or "
                "xcam_models with @xcam.hookimpl"
            )
        for caller in callers:
            if not caller.has_spec():
                near = difflib.get_close_matches(caller.name, _HOOKS, n=1, cutoff=0)[0]
                raise TypeError(f"there is no hook {caller.name!r}; did you mean {near!r}?")
        found = [
            (caller.name, _check(caller.name, implementation.function(), owner))
            for caller in callers
            for implementation in caller.get_hookimpls()
            if implementation.plugin is plugin
        ]
        for hook, brought in found:
            for name, value in brought:
                self._add(hook, name, value, owner)

    def _add(self, hook: str, name: str, value: Any, owner: str) -> None:  # noqa: ANN401
        names: dict[str, Any] = getattr(self, hook.removeprefix("xcam_"))
        if name in self.owners:  # methods and metrics share one space of names: `xcam check NAME`
            first = self.owners[name]
            self._warn(f"{name!r} is brought by both {first} and {owner}; that of {first} stays")
            return
        names[name], self.owners[name] = value, owner
        if hook == "xcam_models":  # whose names are as they are
            return
        for spelling in (name, *value.spec.aliases):
            first = self._spellings.setdefault(simplify(spelling), name)
            if first != name:
                self._warn(
                    f"{spelling!r} of {owner} already stands for {first!r} of "
                    f"{self.owners[first]}, which keeps it; use {name!r}"
                )

    @staticmethod
    def _warn(sentence: str) -> None:
        warn(sentence, PluginWarning)


def simplify(name: str) -> str:
    """Return a name without case, hyphens, underscores and spaces, which do not matter."""
    return re.sub(r"[-_\s]", "", str(name).lower())


def _order(entry_point: importlib.metadata.EntryPoint) -> tuple[bool, str]:
    owner = _owner(entry_point)
    return not owner.startswith(f"{hookspecs.PROJECT}:"), owner


def _owner(entry_point: importlib.metadata.EntryPoint) -> str:
    distribution = entry_point.dist.name if entry_point.dist else "unknown"
    return f"{distribution}:{entry_point.name}"


def _check(hook: str, returned: object, owner: str) -> list[tuple[str, Any]]:
    """Return what a hook returned, with its names, or raise if some of it cannot be used."""
    if hook == "xcam_models":
        return _check_models(returned, owner)
    return [(cls.spec.name, cls) for cls in _check_classes(hook, returned)]


def _check_models(returned: object, owner: str) -> list[tuple[str, Any]]:
    if not isinstance(returned, Mapping):
        raise TypeError(
            "xcam_models must return a dict of classes or functions by 'provider:name', got "
            f"{type(returned).__name__}"
        )
    for name, build in returned.items():
        if not isinstance(name, str) or not _NET.fullmatch(name):
            raise TypeError(f"xcam_models: the name of a net must be 'provider:name', got {name!r}")
        provider = name.partition(":")[0]
        if provider in _RESERVED and not owner.startswith(f"{hookspecs.PROJECT}:"):
            raise TypeError(
                f"xcam_models: {name!r} has the provider {provider}, which is taken; give one of "
                "your own"
            )
        if not callable(build):
            raise TypeError(f"xcam_models: {name!r} must be a class or a function, got {build!r}")
    return [*returned.items()]


def _check_classes(hook: str, classes: object) -> list[Any]:
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
        declared = getattr(cls, "spec", None)
        if not isinstance(declared, MethodSpec | MetricSpec) or not isinstance(declared, spec):
            raise TypeError(f"{name} has no `spec`, which must be a {spec.__name__}")
        aliases = declared.aliases
        if not isinstance(aliases, tuple) or not all(isinstance(each, str) for each in aliases):
            raise TypeError(f"{name}'s aliases must be a tuple of strings, got {aliases!r}")
        options = cls.__dict__.get("__dataclass_params__")
        if options is None or not options.frozen:
            raise TypeError(f"{name} must be decorated with @dataclass(frozen=True)")
    return list(classes)


@functools.cache
def installed() -> Registry:
    """Return the registry of this process, which the first call fills."""
    registry = Registry()
    with importing():
        registry.load(importlib.metadata.entry_points(group=hookspecs.PROJECT))
    return registry


def find_name(name: str) -> str:
    """Return the registered name that a spelling stands for; see `Registry.find_name`."""
    return installed().find_name(name)


def list_methods() -> list[str]:
    """Return the names of all methods, sorted."""
    return sorted(installed().methods)


def list_metrics() -> list[str]:
    """Return the names of all metrics, sorted."""
    return sorted(installed().metrics)


def get_method(name: str) -> type[Method]:
    """Return the class of a method.

    Args:
        name: The registered name, or one of its aliases; case, `-` and `_` do not matter.

    Raises:
        UnknownNameError: No method has this name; similar names and failed plugins are listed.
    """
    return _look_up("method", installed().methods, name)


def make_method(name: str, settings: Mapping[str, Any]) -> Method:
    """Return a method with some settings, and in it the method that its `base` names.

    Raises:
        TypeError: A setting that a method does not have, or of the wrong kind.
        ValueError: A setting out of its range.
        UnknownNameError: No method has this name.
    """
    return make_base(get_method(name)(**settings))


def make_base(method: Method) -> Method:
    """Return the method with its `base`, if it names one, replaced by that method; see `Method`."""
    base = method.parameters().get("base")
    if not isinstance(base, str | tuple):
        return method
    name, settings = (base, {}) if isinstance(base, str) else base
    if isinstance(settings, OptionalPreset) and settings["preset"] not in get_method(name).presets:
        settings = {}
    made = make_method(name, settings)
    return dataclasses.replace(method, base=made)  # type: ignore[type-var]


def get_metric(name: str) -> type[Metric]:
    """Return the class of a metric.

    Args:
        name: The registered name, or one of its aliases; case, `-` and `_` do not matter.

    Raises:
        UnknownNameError: No metric has this name; similar names and failed plugins are listed.
    """
    return _look_up("metric", installed().metrics, name)


def _look_up(kind: str, classes: dict[str, type[T]], name: str) -> type[T]:
    registry = installed()
    found = registry.find_name(name)
    if found in classes:
        return classes[found]
    simplified = {simplify(each): each for each in classes}
    near = difflib.get_close_matches(simplify(name), simplified, n=4, cutoff=0.5)
    names = ", ".join(simplified[each] for each in near)
    hint = f"did you mean {names}?" if near else f"there are {', '.join(sorted(classes))}"
    raise UnknownNameError(f"no {kind} {name!r}: {hint}{registry.describe_failures()}")
