"""What is compared, by name: models, methods, maps that others made, metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from torch import Tensor, nn

from xcam._explain.choose import carried, resolve_method
from xcam._explain.run import attached_method, check_fitted
from xcam._explain.verb import check_model
from xcam.core import Method, Metric
from xcam.core.settings import Settings
from xcam.engine import unwrap
from xcam.engine.forward import Precision
from xcam.errors import NotFittedError
from xcam.explanations.folder import StoredMaps
from xcam.models import Normalized
from xcam.registry import get_method, get_metric

__all__ = [
    "CONTROLS",
    "Entries",
    "MapSource",
    "Maps",
    "Methods",
    "Metrics",
    "Models",
    "Named",
    "check_named",
    "methods_of",
    "of_source",
    "seeded",
]

CONTROLS = ("center_gaussian", "random", "sobel")

R = TypeVar("R", bound=Settings)
MapSource: TypeAlias = "Callable[[Tensor, Sequence[str], Tensor], Tensor | Sequence[Tensor]]"
Models: TypeAlias = "nn.Module | Mapping[str, nn.Module]"
Methods: TypeAlias = "str | Method | Iterable[str | Method] | Mapping[str, str | Method] | None"
Metrics: TypeAlias = "str | Metric | Iterable[str | Metric] | Mapping[str, str | Metric]"
Maps: TypeAlias = "str | Path | MapSource | Mapping[str, str | Path | MapSource] | None"


@dataclass(frozen=True)
class Named:
    """A method by its name, with some settings; by that name each model may carry another.

    Attributes:
        name: As of `xcam.list_methods()`.
        settings: In place of what the model carries, or of the method's defaults.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Entries:
    """What is compared, each by its label in the table.

    Attributes:
        models: The classifiers.
        methods: Of each model, what explains it.
        maps: What gives maps `(images, ids, target)` without a method of ours.
        metrics: What scores the maps.
        labelled: The label is explained, not the predicted class.
        batch_size: Images through a model at a time.
        precision: The models run in.
    """

    models: Mapping[str, nn.Module]
    methods: Mapping[str, Mapping[str, Method]]
    maps: Mapping[str, MapSource]
    metrics: Mapping[str, Metric]
    labeled: bool
    batch_size: int | None = None
    precision: Precision = "full"

    @property
    def asks_labels(self) -> bool:
        """Whether it counts what the labels of the images are."""
        return self.labeled or any(m.spec.truth == "labels" for m in self.metrics.values())

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
    ) -> Entries:
        """Names and objects as users give them, each found and checked.

        Raises:
            TypeError: Something of another kind.
            ValueError: Nothing to compare, a name twice, or an unknown target.
            UnknownNameError: No such method or metric.
            NotFittedError: A model lacks the head of a method, or has it untrained.
        """
        if target not in ("predicted", "label"):
            raise ValueError(f"target must be 'predicted' or 'label', got {target!r}")
        nets, sources = _models(model), _sources(maps)
        if isinstance(methods, Iterator):
            methods = tuple(methods)  # which each model reads
        heads = {name: _head(net) for name, net in nets.items()}
        found = {
            name: _of_other_heads_left_out(methods_of(net, methods, seed), heads, name)
            for name, net in nets.items()
        }
        if not any(found.values()) and not sources:
            raise ValueError("there is nothing to evaluate; give methods, or maps")
        for name, chosen in found.items():
            _check_heads(name, nets[name], chosen)
            for control in CONTROLS if controls else ():
                chosen.setdefault(control, _method(nets[name], seed, control))
            for label in chosen.keys() & sources.keys():
                raise ValueError(
                    f"both a method and maps are called {label!r}; name one, {{name: …}}"
                )
        scored = _labeled(metrics, partial(_metric, seed))
        if not scored:
            raise ValueError("there are no metrics to score with; see xcam.list_metrics()")
        return cls(nets, found, sources, scored, target == "label", batch_size, precision)


def methods_of(model: nn.Module, methods: Methods, seed: int) -> dict[str, Method]:
    """Methods by their labels as they are on a model, whose own goes by its name.

    Args:
        model: The classifier.
        methods: None for its own, and for Grad-CAM if it has none.
        seed: Of those that are given by name.
    """
    given = carried(model, None) if methods is None else methods
    return _labeled(given, partial(_method, model, seed))


def seeded(recipe: type[Settings], seed: int) -> dict[str, int]:
    """The settings by which a method or metric that is given by name draws by this seed."""
    drawn = any(field.name == "seed" for field in dataclasses.fields(recipe))  # type: ignore[arg-type]
    return {"seed": seed} if drawn else {}


def of_source(source: MapSource) -> dict[str, str]:
    """What tells a source of maps from another: a folder and what is in it, or a name."""
    if isinstance(source, StoredMaps):
        return {"folder": str(source.folder.resolve()), "sha256": source.digest()}
    return {"function": f"{getattr(source, '__module__', '')}.{_name(source)}"}


def check_named(sources: Mapping[str, MapSource]) -> None:
    """Refuses, with a `ValueError`, lambdas and objects: another one would have the same name."""
    for label, source in sources.items():
        if not isinstance(source, StoredMaps) and _name(source).endswith(">"):
            raise ValueError(
                f"the maps {label!r} come from {source!r}, which no name tells from others when "
                "the evaluation in `out` goes on; give a function made by def, or no `out`"
            )


def _name(source: MapSource) -> str:
    return str(getattr(source, "__qualname__", f"<{type(source).__qualname__}>"))


def _models(model: Models) -> dict[str, nn.Module]:
    if not isinstance(model, Mapping):
        check_model(model)
        return {_class_of(model): model}
    if not model:
        raise ValueError("there is no model to evaluate")
    for net in model.values():
        check_model(net)
    return {str(name): net for name, net in model.items()}


def _class_of(model: nn.Module) -> str:
    """The class of the classifier itself, within its normalisation and its head."""
    net = unwrap(model)
    net = net.model if isinstance(net, Normalized) else net
    headed = attached_method(model) is not None
    return type(getattr(net, "backbone", net) if headed else net).__name__


def _method(model: nn.Module, seed: int, given: str | Named | Method) -> Method:
    asked = Named(given) if isinstance(given, str) else given
    if not isinstance(asked, Named):
        return resolve_method(asked, {})
    chosen = carried(model, asked.name)
    drawn = seeded(get_method(chosen), seed) if isinstance(chosen, str) else {}
    return resolve_method(chosen, {**drawn, **asked.settings})


def _head(model: nn.Module) -> str | None:
    own = attached_method(model)
    return None if own is None else own.spec.name


def _of_other_heads_left_out(
    methods: dict[str, Method], heads: Mapping[str, str | None], name: str
) -> dict[str, Method]:
    """Of a model's methods those that can explain it, if the others explain another model."""
    elsewhere = {head for head in heads.values() if head != heads[name]}
    left = {label: m for label, m in methods.items() if m.spec.name not in elsewhere}
    return left or methods  # of nothing that is left the missing head is said


def _check_heads(name: str, model: nn.Module, methods: Mapping[str, Method]) -> None:
    for method in methods.values():
        try:
            check_fitted(method, model)
        except NotFittedError as error:
            raise NotFittedError(f"model {name!r}: {error}") from error


def _metric(seed: int, given: str | Metric) -> Metric:
    if isinstance(given, str):
        cls: type[Metric] = get_metric(given)
        return cls(**seeded(cls, seed))
    if not isinstance(given, Metric):
        raise TypeError(f"metrics must be names or Metric objects, got {given!r}")
    return given


def _labeled(given: object, resolve: Callable[..., R]) -> dict[str, R]:
    """Each by its label: the caller's; else its name; else, where a name comes twice, its repr."""
    if isinstance(given, Mapping):
        return {str(label): resolve(one) for label, one in given.items()}
    if isinstance(given, str | Settings) or not isinstance(given, Iterable):
        given = (given,)
    found = [resolve(one) for one in given]
    names = [str(one.spec.name) for one in found]  # type: ignore[attr-defined]  # both kinds have
    labels = [repr(one) if names.count(n) > 1 else n for n, one in zip(names, found, strict=True)]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"{label} is given twice; give each once, or name them, {{name: …}}")
    return dict(zip(labels, found, strict=True))


def _sources(maps: Maps) -> dict[str, MapSource]:
    if maps is None:
        return {}
    if isinstance(maps, Mapping):
        return {str(label): _source(one) for label, one in maps.items()}
    source = _source(maps)
    return {source.folder.resolve().name if isinstance(source, StoredMaps) else "maps": source}


def _source(given: object) -> MapSource:
    if isinstance(given, str | Path):
        return StoredMaps(given)
    if not callable(given):
        raise TypeError(
            "maps must be a folder, a callable (images, ids, target) -> maps, or a dict of them, "
            f"got {given!r}"
        )
    return given
