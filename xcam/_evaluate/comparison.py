"""What an evaluation compares, by label: models, methods, maps from elsewhere, metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor, nn

from xcam._explain.checks import check_model
from xcam._explain.prepared import (
    check_table_labels,
    label_settings,
    requested_method,
    resolve_method,
)
from xcam.core import Method, Metric, attached_method, check_fitted, find_headed
from xcam.core.settings import Settings
from xcam.engine import unwrap
from xcam.engine.forward import Precision
from xcam.errors import NotFittedError
from xcam.explanations.folder import StoredMaps
from xcam.models import Normalized
from xcam.registry import get_method, get_metric

__all__ = [
    "CONTROLS",
    "Comparison",
    "MapSource",
    "Maps",
    "Methods",
    "Metrics",
    "Models",
    "NamedArguments",
    "check_identity",
    "describe_source",
    "resolve_methods",
    "seed_arguments",
]

CONTROLS = ("center_gaussian", "random", "sobel")

MapSource: TypeAlias = "Callable[[Tensor, Sequence[str], Tensor], Tensor | Sequence[Tensor]]"
Models: TypeAlias = "nn.Module | Mapping[str, nn.Module]"
Methods: TypeAlias = "str | Method | Iterable[str | Method] | Mapping[str, str | Method] | None"
Metrics: TypeAlias = "str | Metric | Iterable[str | Metric] | Mapping[str, str | Metric]"
Maps: TypeAlias = "str | Path | MapSource | Mapping[str, str | Path | MapSource] | None"


@dataclass(frozen=True)
class NamedArguments:
    """A method's name and some of its arguments; the others are the model's own or the defaults.

    Attributes:
        name: A name of `xcam.list_methods()`.
        arguments: Settings of the method by name.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What is compared, each by its label in the table.

    Attributes:
        models: The classifiers.
        methods: The methods that explain each model.
        maps: Sources of maps other than methods, called with (images, ids, target).
        metrics: The metrics that score the maps, if any.
        explains_labels: Whether the target is the label, not the predicted class.
        batch_size: Images through a model at a time.
        precision: The precision that the models run in.
    """

    models: Mapping[str, nn.Module]
    methods: Mapping[str, Mapping[str, Method]]
    maps: Mapping[str, MapSource]
    metrics: Mapping[str, Metric]
    explains_labels: bool
    batch_size: int | None = None
    precision: Precision = "full"

    @property
    def needs_labels(self) -> bool:
        """Return whether any row depends on the labels of the images."""
        return self.explains_labels or any(m.spec.truth == "labels" for m in self.metrics.values())

    @classmethod
    def of(
        cls,
        model: Models,
        methods: Methods,
        metrics: Metrics,
        maps: Maps,
        target: str,
        controls: bool,
        seed: int,
        batch_size: int | None,
        precision: Precision,
    ) -> Comparison:
        """Resolve and check names and objects as `evaluate` takes them.

        Raises:
            TypeError: An argument of the wrong kind.
            ValueError: Nothing to compare, a label given twice, or an unknown target.
            UnknownNameError: No such method or metric.
            NotFittedError: A model lacks the head of a method, or has it untrained.
        """
        if target not in ("predicted", "label"):
            raise ValueError(f"target must be 'predicted' or 'label', got {target!r}")
        nets, sources = _label_models(model), _label_sources(maps)
        if isinstance(methods, Iterator):
            methods = tuple(methods)  # each model reads it
        by_model = _resolve_for_each(nets, methods, seed)
        if not any(by_model.values()) and not sources:
            raise ValueError("there is nothing to evaluate; give methods, or maps")
        for name, chosen in by_model.items():
            _check_heads(name, nets[name], chosen)
            for control in CONTROLS if controls else ():
                chosen.setdefault(control, _resolve_method(nets[name], seed, control))
            for label in chosen.keys() & sources.keys():
                raise ValueError(
                    f"both a method and maps are called {label!r}; name one, {{name: …}}"
                )
        scored = label_settings(metrics, partial(_resolve_metric, seed))
        return cls(nets, by_model, sources, scored, target == "label", batch_size, precision)


def resolve_methods(model: nn.Module, methods: Methods, seed: int) -> dict[str, Method]:
    """Return methods by label; the name of the model's own means the one that it carries.

    Args:
        model: The classifier.
        methods: None for the model's own, and for Grad-CAM if it has none.
        seed: The seed of methods that are given by name.
    """
    given = requested_method(model, None) if methods is None else methods
    return label_settings(given, partial(_resolve_method, model, seed))


def seed_arguments(settings: type[Settings], seed: int) -> dict[str, int]:
    """Return `{"seed": seed}` for a method or metric that has a seed, else nothing."""
    fields = dataclasses.fields(settings)  # type: ignore[arg-type]
    return {"seed": seed} if any(field.name == "seed" for field in fields) else {}


def describe_source(source: MapSource) -> dict[str, str]:
    """Return what identifies a source of maps: a folder with a hash, or a function's name."""
    if isinstance(source, StoredMaps):
        return {"folder": str(source.folder.resolve()), "sha256": source.digest()}
    return {"function": f"{getattr(source, '__module__', '')}.{_qualified_name(source)}"}


def check_identity(sources: Mapping[str, MapSource]) -> None:
    """Refuse lambdas and objects as sources of maps: their names do not identify them.

    Raises:
        ValueError: There is one.
    """
    for label, source in sources.items():
        if not isinstance(source, StoredMaps) and _qualified_name(source).endswith(">"):
            raise ValueError(
                f"the maps {label!r} come from {source!r}, which has no name to recognize it by "
                "when the evaluation in `out` is resumed; give a function made by def, or no `out`"
            )


def _qualified_name(source: MapSource) -> str:
    return str(getattr(source, "__qualname__", f"<{type(source).__qualname__}>"))


def _label_models(model: Models) -> dict[str, nn.Module]:
    if not isinstance(model, Mapping):
        check_model(model)
        return {_name_class(model): model}
    if not model:
        raise ValueError("there is no model to evaluate")
    check_table_labels(model)
    for net in model.values():
        check_model(net)
    return dict(model)


def _name_class(model: nn.Module) -> str:
    """Return the class name of the classifier inside its normalization and its head."""
    net = unwrap(model)
    if attached_method(net) is not None:
        net = find_headed(net).classifier
    return type(net.model if isinstance(net, Normalized) else net).__name__


def _resolve_method(model: nn.Module, seed: int, given: str | NamedArguments | Method) -> Method:
    named = NamedArguments(given) if isinstance(given, str) else given
    if not isinstance(named, NamedArguments):
        return resolve_method(named, {})
    chosen = requested_method(model, named.name)
    seeded = seed_arguments(get_method(chosen), seed) if isinstance(chosen, str) else {}
    return resolve_method(chosen, {**seeded, **named.arguments})


def _resolve_for_each(
    models: Mapping[str, nn.Module], methods: Methods, seed: int
) -> dict[str, dict[str, Method]]:
    """Return the methods of each model without those whose heads only other models carry."""
    own = {name: attached_method(net) for name, net in models.items()}
    heads = {name: None if head is None else head.spec.name for name, head in own.items()}
    return {
        name: _applicable_methods(
            resolve_methods(net, methods, seed), set(heads.values()) - {heads[name]}
        )
        for name, net in models.items()
    }


def _applicable_methods(methods: dict[str, Method], foreign: set[str | None]) -> dict[str, Method]:
    """Return the methods that do not need a head of another model."""
    applicable = {name: one for name, one in methods.items() if one.spec.name not in foreign}
    return applicable or methods  # with none left, the error about the missing head is clearer


def _check_heads(name: str, model: nn.Module, methods: Mapping[str, Method]) -> None:
    for method in methods.values():
        try:
            check_fitted(method, model)
        except NotFittedError as error:
            raise NotFittedError(f"model {name!r}: {error}") from error


def _resolve_metric(seed: int, given: str | Metric) -> Metric:
    if isinstance(given, str):
        cls: type[Metric] = get_metric(given)
        return cls(**seed_arguments(cls, seed))
    if not isinstance(given, Metric):
        raise TypeError(f"metrics must be names or Metric objects, got {given!r}")
    return given


def _label_sources(maps: Maps) -> dict[str, MapSource]:
    if maps is None:
        return {}
    if isinstance(maps, Mapping):
        check_table_labels(maps)
        return {label: _open_source(one) for label, one in maps.items()}
    source = _open_source(maps)
    return {source.folder.resolve().name if isinstance(source, StoredMaps) else "maps": source}


def _open_source(given: object) -> MapSource:
    if isinstance(given, str | Path):
        return StoredMaps(given)
    if not callable(given):
        raise TypeError(
            "maps must be a folder, a callable (images, ids, target) -> maps, or a dict of them, "
            f"got {given!r}"
        )
    return given
