"""Imports point one way, and `import xcam` is free of side effects."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

import xcam

ROOT = Path(xcam.__file__).parent

# Each area may import itself and those of the lines above.
LAYERS = [
    {"errors", "forks", "sentences", "imaging"},
    {"runs"},
    {"core", "hookspecs"},
    {"engine"},
    {"registry", "models"},
    {"explanations", "_explain"},
    {"methods", "metrics", "data"},
    {"checkpoints", "results"},
    {"_fit", "_evaluate", "_roar"},
    {"testing", "recipes", "cli", ""},  # "" is `import xcam`, which loads any of its names
    {"__main__", "pretrained"},
]
# What lies below and must stay unknown all the same: maps know no names, nor what scores them.
FORBIDDEN = {("methods", "registry"), ("methods", "_explain"), ("metrics", "registry")}
RANK = {area: rank for rank, areas in enumerate(LAYERS) for area in areas}
APART = {"methods", "metrics", "data"}  # and none of these imports another

MODULES = {
    ".".join(("xcam", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in ROOT.rglob("*.py")
}


def area(module):
    return module.split(".")[1] if "." in module else ""


def imports(tree, inside_function=False):
    """Each xcam module that is imported at run time, and whether that is in a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(node, inside_function or function)
            continue
        for name in names:
            if name.split(".")[0] == "xcam":
                yield resolved(name), inside_function


def resolved(name):
    """The module that holds the name: `xcam.core.Method` is of `xcam.core`."""
    while name not in MODULES:
        name = name.rpartition(".")[0]
    return name


@cache
def find_imports():
    """Each module with one that it imports, and whether that is in a function."""
    return [
        (module, name, inside_function)
        for module, path in MODULES.items()
        for name, inside_function in imports(ast.parse(path.read_text("utf-8")))
    ]


def test_every_area_is_in_a_layer():
    assert {area(module) for module in MODULES} - RANK.keys() == set()


def test_imports_point_one_way():
    for module, name, _ in find_imports():
        own, other = area(module), area(name)
        assert RANK[other] <= RANK[own], f"{module} imports {name} from above"
        assert own == other or not {own, other} <= APART, f"{module} imports {name} beside it"
        assert (own, other) not in FORBIDDEN, f"{module} imports {name}"


def test_only_commands_import_within_functions():
    """They start without torch; elsewhere such an import would hide a circle."""
    inside = [(module, name) for module, name, inside_function in find_imports() if inside_function]
    free = {"xcam", "xcam.__main__"}
    assert [pair for pair in inside if pair[0] not in free and area(pair[0]) != "cli"] == []


def test_no_circles():
    graph = {module: set() for module in MODULES}
    for module, name, inside_function in find_imports():
        if not inside_function and name != module:
            graph[module].add(name)
    for module in graph:  # a package is loaded before what is in it, and by way of it
        graph[module] -= {package for package in graph if module.startswith(f"{package}.")}
    done = set()
    while ready := {module for module in graph.keys() - done if graph[module] <= done}:
        done |= ready
    assert not graph.keys() - done


def run(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )


class TestFreshProcess:
    def test_import_loads_nothing_heavy(self):
        result = run("import sys, xcam; dir(xcam); xcam.__version__; print(*sys.modules)")
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        loaded = {name.split(".")[0] for name in result.stdout.split()}
        heavy = {"torch", "torchvision", "numpy", "matplotlib", "pluggy", "captum", "tqdm", "PIL"}
        assert not loaded & heavy
        assert {name for name in result.stdout.split() if name.startswith("xcam")} == {
            "xcam",
            "xcam.forks",
        }

    def test_explaining_loads_no_bridge_and_no_figures(self):
        result = run(
            "import sys, torch, xcam\n"
            "from xcam.models.toy import GapNet\n"
            "xcam.explain(GapNet(), torch.rand(2, 3, 8, 8))\n"
            "print(*sys.modules)"
        )
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        loaded = {name.split(".")[0] for name in result.stdout.split()}
        heavy = {"matplotlib", "captum", "pytorch_grad_cam", "cv2", "pandas", "typer", "timm"}
        assert not loaded & heavy
        assert "xcam.checkpoints" not in result.stdout.split()

    def test_discovery_waits_for_the_first_look_up(self):
        result = run(
            "import importlib.metadata as m\n"
            "found = m.entry_points\n"
            "def look(group):\n"
            "    if group == 'xcam': raise SystemExit('looked')\n"
            "    return found(group=group)\n"
            "m.entry_points = look\n"
            "import xcam, xcam.registry, xcam.core, xcam.models\n"
            "xcam.explain, xcam.Method\n"
            "print('quiet')\n"
            "xcam.list_methods()"
        )
        assert result.stdout == "quiet\n"
        assert result.stderr.strip() == "looked"


class TestPublicNames:
    @pytest.mark.parametrize("name", xcam.__all__)
    def test_resolves(self, name):
        assert getattr(xcam, name) is not None

    def test_public_names_are_what_dir_shows(self):
        assert dir(xcam) == sorted([*xcam.__all__, "__version__"])
        assert xcam.__all__ == sorted(xcam.__all__)
        assert xcam.__version__ == importlib.metadata.version("xcam")

    def test_star(self):
        names = {}
        exec("from xcam import *", names)
        assert names["explain"] is xcam.explain

    def test_unknown(self):
        with pytest.raises(AttributeError, match="'xcam' has no attribute 'explian'"):
            _ = xcam.explian


PACKAGES = sorted(name for name, path in MODULES.items() if path.name == "__init__.py")


def test_no_module_has_the_name_of_something_public():
    for package in PACKAGES:
        module = importlib.import_module(package)
        inside = {info.name for info in pkgutil.iter_modules(module.__path__)}
        for name in inside & set(getattr(module, "__all__", [])):
            assert isinstance(getattr(module, name), ModuleType), f"{package}.{name}"


def test_all_is_true():
    for name in sorted(MODULES.keys() - {"xcam.__main__"}):
        module = importlib.import_module(name)
        public = getattr(module, "__all__", [])
        assert len(set(public)) == len(public), name
        assert [each for each in public if getattr(module, each, None) is None] == [], name
