"""What a page says of the run: facts, methods, and how to make the results again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from xcam.core import Method, Metric
from xcam.errors import FileFormatError
from xcam.registry import installed
from xcam.runs import files
from xcam.runs.manifest import read_manifest

__all__ = [
    "add_command",
    "describe_methods",
    "describe_metrics",
    "list_facts",
    "make_call",
    "make_methods",
    "read_commands",
    "read_run",
]

_COMMANDS = "commands.txt"


def read_run(folder: Path) -> dict[str, Any]:
    """Return the manifest of an evaluation.

    Raises:
        FileFormatError: It is missing or damaged.
    """
    path = folder / "manifest.json"
    try:
        return read_manifest(path, "evaluation")
    except OSError as error:
        raise FileFormatError(f"{str(path)!r} cannot be read ({error.strerror})") from error


def add_command(folder: Path, command: str) -> None:
    """Remember a command that worked on an evaluation, unless it was the last one.

    Raises:
        OSError: The folder cannot be written to.
    """
    known = read_commands(folder)
    if known[-1:] != [command]:
        content = "".join(f"{line}\n" for line in [*known, command])
        files.write(folder / _COMMANDS, content.encode("utf-8", "backslashreplace"))


def read_commands(folder: Path) -> list[str]:
    """Return the commands that made an evaluation, the first one first; none if it was Python."""
    path = folder / _COMMANDS
    return path.read_text("utf-8").splitlines() if path.exists() else []


def list_facts(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a manifest says of models, images and settings, by name."""
    facts = [
        (f"model {name}", f"{one.get('class', '')}, SHA-256 {str(one.get('sha256', ''))[:12]}")
        for name, one in run.get("models", {}).items()
    ]
    images = run.get("images", {})
    digest = f", SHA-256 of their list {str(images['sha256'])[:12]}" if "sha256" in images else ""
    facts.append(("images", f"{images.get('count', 'unknown')}{digest}"))
    targets = {"label": "the label", "predicted": "the predicted class"}
    for name, text in (
        ("explained class", targets.get(run.get("target", ""))),
        (
            "batch size",
            run.get("batch_size") or ("chosen by xcam" if "batch_size" in run else None),
        ),
        ("precision", run.get("precision")),
        ("seed", run.get("seed")),
    ):
        if text is not None:
            facts.append((name, str(text)))
    facts += [(f"version of {name}", str(one)) for name, one in run.get("versions", {}).items()]
    facts.append(("intervals", "95 %, BCa bootstrap over images; of curves percentile bootstrap"))
    return facts


def describe_metrics(metrics: Mapping[str, Metric]) -> list[dict[str, str]]:
    """Return the conventions of each metric."""
    return [
        {
            "label": label,
            "title": metric.spec.title,
            "direction": metric.spec.direction,
            "bounds": metric.spec.interval,
            "question": metric.spec.question,
            "formula": metric.spec.formula,
            "settings": repr(metric),
            "paper": metric.spec.paper,
        }
        for label, metric in metrics.items()
    ]


def describe_methods(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the settings of each method, on each model where they differ, and its source."""
    known = installed().methods
    described = []
    for label, entry in run.get("methods", {}).items():
        by_model = {model: one.get("repr", "") for model, one in entry.get("on", {}).items()}
        is_one = len(set(by_model.values())) == 1
        settings = (
            [next(iter(by_model.values()))]
            if is_one
            else [f"{model}: {text}" for model, text in by_model.items()]
        )
        name = entry.get("name", label)
        paper = known[name].spec.paper if name in known else ""
        described.append({"label": label, "settings": settings, "paper": paper})
    for label, entry in run.get("maps", {}).items():
        described.append({"label": label, "settings": [f"maps from {entry}"], "paper": ""})
    return described


def make_methods(run: Mapping[str, Any], model: str) -> dict[str, Method | str]:
    """Return the methods as they were applied to a model; names of those that cannot be made."""
    known = installed().methods
    found: dict[str, Method | str] = {}
    for label, entry in run.get("methods", {}).items():
        values = entry.get("on", {}).get(model, {}).get("parameters", {})
        found[label] = label
        if entry.get("name") in known:
            settings = {key: tuple(x) if isinstance(x, list) else x for key, x in values.items()}
            try:
                found[label] = known[entry["name"]](**settings)
            except (TypeError, ValueError):  # a tensor, say, which no manifest holds
                continue
    return found


def make_call(
    run: Mapping[str, Any], metrics: Mapping[str, Metric], controls: Collection[str]
) -> str:
    """Return the call of `xcam.evaluate` that makes an evaluation; empty if that is unknown."""
    if "target" not in run:
        return ""
    registry = installed()
    kinds: list[type] = []
    methods = {}
    for label, entry in run["methods"].items():
        if label not in controls:
            methods[label] = next(iter(entry["on"].values()))["repr"]
            kinds += [registry.methods[entry["name"]]] if entry["name"] in registry.methods else []
    kinds += [type(metric) for metric in metrics.values()]
    models = list(run["models"])
    lines = [
        "import xcam",
        *_list_imports(kinds),
        "",
        "results = xcam.evaluate(",
        f"    {_join_models(models)},",
        f"    data,  # {run['images']['count']} images",
        f"    methods={_join(methods.items())},",
        f"    metrics={_join((label, repr(metric)) for label, metric in metrics.items())},",
        *(["    maps=…,  # " + ", ".join(run["maps"])] if run.get("maps") else []),
        *([] if run["target"] == "predicted" else [f"    target={run['target']!r},"]),
        *([] if controls else ["    controls=False,"]),
        *(["    save_maps=True,"] if run.get("save_maps") else []),
        *([f"    precision={run['precision']!r},"] if run.get("precision") != "full" else []),
        f"    seed={run['seed']},",
        ")",
    ]
    return "\n".join(lines)


def _join_models(names: list[str]) -> str:
    if len(names) == 1:
        return "model"
    return f"{{{', '.join(f'{name!r}: …' for name in names)}}}"


def _join(pairs: Iterable[tuple[str, str]]) -> str:
    lines = [f"        {label!r}: {text}," for label, text in pairs]
    return "\n".join(["{", *lines, "    }"]) if lines else "()"


def _list_imports(kinds: Iterable[type]) -> list[str]:
    """Return the lines that import classes, sorted."""
    names: dict[str, set[str]] = {}
    for kind in kinds:
        names.setdefault(kind.__module__, set()).add(kind.__qualname__)
    return [f"from {module} import {', '.join(sorted(names[module]))}" for module in sorted(names)]
