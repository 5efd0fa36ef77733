"""The generated reference: nothing that is registered or public is without documentation."""

import importlib
import inspect
import json
from pathlib import Path

import api_pages
import command_line
import entries
import pytest
import typer
from typer.main import get_command

import xcam
from xcam import cli, hookspecs
from xcam.core import MethodSpec

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "figures" / "methods"
PUBLIC = (ROOT / "tests" / "public_names.txt").read_text("utf-8").split()


@pytest.fixture(scope="module")
def pages():
    return entries.make_entries()


@pytest.mark.parametrize("name", xcam.list_methods())
def test_every_method_has_a_page(name, pages):
    cls, page = xcam.get_method(name), pages[f"methods/{name}"]
    assert page.startswith(f"# {cls.spec.title}\n")
    assert f".. autoclass:: {entries.find_path(cls)}\n" in page
    assert f"\nName\n: `{name}`" in page
    assert f"\nPasses an image\n: {cls.spec.cost}\n" in page
    assert ("```bibtex\n@" in page) == bool(cls.spec.paper)


@pytest.mark.parametrize("name", xcam.list_metrics())
def test_every_metric_has_a_page(name, pages):
    cls, page = xcam.get_metric(name), pages[f"metrics/{name}"]
    assert page.startswith(f"# {cls.spec.title}\n\n{entries.write_formula(cls.spec.formula)}\n")
    assert f".. autoclass:: {entries.find_path(cls)}\n" in page
    assert f"\nRange\n: {cls.spec.interval}\n" in page
    for pair, reason in cls.spec.known_failures.items():
        assert f"does not put {pair}: {reason}" in page


def test_facts_say_how_a_method_differs():
    spec = MethodSpec("x", "X", "", "control", "none", class_specific=False, signed=False)

    control = type("Control", (), {"spec": spec, "__dataclass_fields__": {}})
    facts = entries.list_method_facts(control)
    assert facts["Depends on the class"].startswith("no")
    assert facts["Sign"] == "never negative"
    assert facts["Takes gradients"] == "no"
    assert facts["Prediction"] == facts["Reads"] == ""


@pytest.mark.parametrize("path", PUBLIC)
def test_every_public_name_is_documented(path):
    module, _, name = path.rpartition(".")
    thing = getattr(importlib.import_module(module), name)
    if inspect.ismodule(thing):
        assert thing.__name__ in api_pages.PAGES
    else:
        home = HOMES[id(thing)]
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), home


HOMES = api_pages.find_homes()


def test_every_hook_is_documented():
    hooks = [name for name in dir(hookspecs) if name.startswith("xcam_")]
    assert hooks == ["xcam_methods", "xcam_metrics", "xcam_models"]
    plugins = (ROOT / "docs" / "howto" / "plugins.md").read_text("utf-8")
    example = (ROOT / "examples" / "plugin" / "xcam_example" / "__init__.py").read_text("utf-8")
    page = api_pages.make_page("xcam.hookspecs", HOMES)
    for hook in hooks:
        assert inspect.getdoc(getattr(hookspecs, hook))
        assert f".. autofunction:: xcam.hookspecs.{hook}\n" in page
        assert hook in plugins + example


def test_pages_document_each_thing_once():
    shown = [
        line
        for page in [*api_pages.make_api_pages().values(), *entries.make_entries().values()]
        for line in page.split("\n")
        if line.startswith(".. auto")
    ]
    assert len(shown) == len(set(shown))


def test_every_command_and_option_is_on_the_page():
    page = command_line.make_command_line_page()
    for name, command in get_command(cli.app).commands.items():
        assert f"\n## xcam {name}\n" in page
        for option in (opt for param in command.params for opt in param.opts):
            assert option in page, f"{name} {option}"


def test_help_becomes_markdown():
    app = typer.Typer()

    @app.command()
    def go(size: int = typer.Option(3, help="Sides [*], by `a*b`.")):
        """Go."""

    command = get_command(app)
    section = command_line.make_section("go", command)
    assert "```text\nxcam go [OPTIONS]\n```\n\nGo." in section
    assert "`--size <int>`\n: Sides \\[\\*\\], by `a*b`. Default: `3`." in section


def test_pictures_are_small_and_of_methods():
    drawn = json.loads((PICTURES / "drawn.json").read_text("utf-8"))
    files = sorted(PICTURES.glob("*.webp"))
    assert [path.stem for path in files] == sorted(drawn)
    assert {path.stem for path in files} <= set(xcam.list_methods())
    assert all(path.stat().st_size < 25_000 for path in files)
