"""What is compared, by name: models, methods, maps that others made, metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

from torch import Tensor, nn

from xcam._explain import check_model, method_of
from xcam.core import Method, Metric
from xcam.core.recipe import Recipe
from xcam.forward import Precision
from xcam.models import Normalized
from xcam.registry import get_method, get_metric
from xcam.state import unwrap
from xcam.stored_maps import StoredMaps

__all__ = [
    "CONTROLS",
    "Entries",
    "MapSource",
    "Maps",
    "Methods",
    "Metrics",
    "Models",
    "check_named",
    "of_source",
    "seeded",
]

CONTROLS = ("center_gaussian", "random", "sobel")

R = TypeVar("R", bound=Recipe)
MapSource: TypeAlias = "Callable[[Tensor, Sequence[str], Tensor], Tensor | Sequence[Tensor]]"
Models: TypeAlias = "nn.Module | Mapping[str, nn.Module]"
Methods: TypeAlias = "str | Method | Iterable[str | Method] | Mapping[str, str | Method]"
Metrics: TypeAlias = "str | Metric | Iterable[str | Metric] | Mapping[str, str | Metric]"
Maps: TypeAlias = "str | Path | MapSource | Mapping[str, str | Path | MapSource] | None"


@dataclass(frozen=True, eq=False)
class Entries:
    """What is compared, each by its label in the table.

    Attributes:
        models: The classifiers.
        methods: What explains them.
        maps: What gives maps `(images, ids, target)` without a method of ours.
        metrics: What scores the maps.
        labelled: The label is explained, not the predicted class.
        batch_size: Images through a model at a time.
        precision: The models run in.
    """

    models: Mapping[str, nn.Module]
    methods: Mapping[str, Method]
    maps: Mapping[str, MapSource]
    metrics: Mapping[str, Metric]
    labelled: bool
    batch_size: int | None = None
    precision: Precision = "full"

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
        """
        if target not in ("predicted", "label"):
            raise ValueError(f"target must be 'predicted' or 'label', got {target!r}")
        chosen, sources = _labelled(methods, partial(_method, seed)), _sources(maps)
        if not chosen and not sources:
            raise ValueError("there is nothing to evaluate; give methods, or maps")
        if controls:
            for name in CONTROLS:
                chosen.setdefault(name, _method(seed, name))
        for twice in chosen.keys() & sources.keys():
            raise ValueError(f"both a method and maps are called {twice!r}; name one, {{name: …}}")
        scored = _labelled(metrics, partial(_metric, seed))
        if not scored:
            raise ValueError("there are no metrics to score with; see xcam.list_metrics()")
        return cls(
            _models(model), chosen, sources, scored, target == "label", batch_size, precision
        )


def seeded(recipe: type[Recipe], seed: int) -> dict[str, int]:
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
        net = unwrap(model)
        return {type(net.model if isinstance(net, Normalized) else net).__name__: model}
    if not model:
        raise ValueError("there is no model to evaluate")
    for net in model.values():
        check_model(net)
    return {str(name): net for name, net in model.items()}


def _method(seed: int, given: str | Method) -> Method:
    return method_of(given, seeded(get_method(given), seed) if isinstance(given, str) else {})


def _metric(seed: int, given: str | Metric) -> Metric:
    if isinstance(given, str):
        cls: type[Metric] = get_metric(given)
        return cls(**seeded(cls, seed))
    if not isinstance(given, Metric):
        raise TypeError(f"metrics must be names or Metric objects, got {given!r}")
    return given


def _labelled(given: object, resolve: Callable[..., R]) -> dict[str, R]:
    """Each by its label: the caller's; else its name; else, where a name comes twice, its repr."""
    if isinstance(given, Mapping):
        return {str(label): resolve(one) for label, one in given.items()}
    if isinstance(given, str | Recipe) or not isinstance(given, Iterable):
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
