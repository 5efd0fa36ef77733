"""Write the reference of the Python interface: a page a module, from what modules export."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator

from entries import find_path

import xcam
from xcam.core import Method, Metric

# What is documented on the page of each module: all that it exports, or the names that are listed.
# What two modules export is documented by the first that exports it here.
PAGES: dict[str, tuple[str, dict[str, list[str] | None]]] = {
    "xcam": ("Verbs, their results, and finding methods and metrics by name.", {"xcam": None}),
    "xcam.data": ("Data sets to train, explain and evaluate on.", {"xcam.data": None}),
    "xcam.models": (
        "Nets by name, and what wraps them.",
        {
            "xcam.models": None,
            "xcam.models.whitebox.simple_cnn": ["SimpleCNN"],
            "xcam.models.whitebox.cbam": ["CBAM"],
            "xcam.models.whitebox.ran": ["RAN"],
            "xcam.models.whitebox.warn": ["WARN"],
            "xcam.models.cifar.resnet": ["CifarResNet"],
            "xcam.models.cifar.densenet": ["CifarDenseNet"],
            "xcam.models.cifar.resnext": ["CifarResNeXt"],
            "xcam.models.cifar.wide_resnet": ["CifarWideResNet"],
        },
    ),
    "xcam.checkpoints": (
        "Files of nets and explanations, and checkpoints of the published code.",
        {"xcam.checkpoints": None},
    ),
    "xcam.recipes": ("Settings of published trainings, by name.", {"xcam.recipes": None}),
    "xcam.results": (
        "What an evaluation gives, its tables and its figures.",
        {"xcam.results": None, "xcam.results.tables": None, "xcam.results.figures": None},
    ),
    "xcam.errors": ("Errors and warnings, all derived from two.", {"xcam.errors": None}),
    "xcam.core": (
        "What methods, metrics and explanations are made of, for those who write one.",
        {"xcam.core": None, "xcam.core.figures": ["draw_grid"]},
    ),
    "xcam.engine": (
        "Passes of a model: made, recorded, changed, shared; the model stays as it was.",
        {
            "xcam.engine": None,
            "xcam.engine.forward": ["call", "note"],
            "xcam.engine.chunks": ["chunks", "collect"],
            "xcam.engine.clean": None,
            "xcam.engine.shared": ["shareable", "share_passes"],
            "xcam.engine.masking": None,
        },
    ),
    "xcam.methods": (
        "The methods' classes, and what a method of your own can use.",
        {
            "xcam.methods": None,
            "xcam.methods.cam.features": None,
            "xcam.methods.trainable": None,
        },
    ),
    "xcam.metrics": (
        "The metrics' classes, and what a metric of your own can use.",
        {
            "xcam.metrics": None,
            "xcam.metrics.inputs": None,
            "xcam.metrics.localization.truth": None,
        },
    ),
    "xcam.imaging": ("Images: read, resized, normalized, colored.", {"xcam.imaging": None}),
    "xcam.testing": (
        "The contract that methods and metrics are tested by.",
        {"xcam.testing": None},
    ),
    "xcam.hookspecs": ("What a plugin implements.", {"xcam.hookspecs": None}),
}


def make_api_pages() -> dict[str, str]:
    """Return the pages, by their path without the suffix."""
    homes = find_homes()
    return {f"api/{page}": make_page(page, homes) for page in PAGES}


def find_homes() -> dict[int, str]:
    """Return by the identity of each exported thing the path under which it is documented."""
    homes: dict[int, str] = {}
    for _, modules in PAGES.values():
        for module, names in modules.items():
            for name, thing in list_exports(module, names):
                if inspect.isclass(thing) and is_entry(thing):
                    homes.setdefault(id(thing), find_path(thing))
                elif not inspect.ismodule(thing):
                    homes.setdefault(id(thing), f"{module}.{name}")
    return homes


def list_exports(module: str, names: list[str] | None) -> Iterator[tuple[str, object]]:
    """Yield the names that a module exports, or the given ones, with what they are."""
    found = importlib.import_module(module)
    for name in names or found.__all__:
        yield name, getattr(found, name)


def is_entry(thing: type) -> bool:
    """Return whether a class is a registered method or metric, which has a page of its own."""
    registered = [*map(xcam.get_method, xcam.list_methods())]
    return issubclass(thing, (Method, Metric)) and thing in [
        *registered,
        *map(xcam.get_metric, xcam.list_metrics()),
    ]


def make_page(page: str, homes: dict[int, str]) -> str:
    """Return the page of a module, and of those below it that go with it."""
    text, modules = PAGES[page]
    parts = [f"# {page}", text]
    for module, names in modules.items():
        if module != page:
            parts.append(f"## {module}")
        elsewhere = []
        for name, thing in list_exports(module, names):
            path = f"{module}.{name}"
            if inspect.ismodule(thing):
                elsewhere.append(f"[`{name}`]({path}.md)")
            elif homes[id(thing)] != path or (inspect.isclass(thing) and is_entry(thing)):
                elsewhere.append(f"{{py:obj}}`{name} <{homes[id(thing)]}>`")
            else:
                parts.append(show(path, thing))
        if elsewhere:
            parts.append(f"Documented elsewhere: {', '.join(elsewhere)}.")
    return "\n\n".join(parts) + "\n"


def show(path: str, thing: object) -> str:
    """Return the directive that documents something."""
    if inspect.isclass(thing):
        kind, options = "class", "\n   :members:"
    elif callable(thing) and hasattr(thing, "__code__"):
        kind, options = "function", ""
    else:
        kind, options = "data", "\n   :no-value:"
    return f"```{{eval-rst}}\n.. auto{kind}:: {path}{options}\n```"
