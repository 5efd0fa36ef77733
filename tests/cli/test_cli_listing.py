"""What the command line lists without torch, completes and cites."""

import json
import os
import re
import subprocess
import sys

import pytest
from commands import refused, run

import xcam
from xcam import cli
from xcam.cli import catalog, citing

LISTING = (
    "import sys; sys.modules['torch'] = None; import xcam.cli; xcam.cli.app({!r}, prog_name='xcam')"
)


def call(*arguments, **variables):
    code = LISTING.format(list(arguments))
    environment = {**os.environ, **variables}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)


@pytest.fixture(scope="module")
def rows():
    return catalog.make_catalog()


def test_file_lists_what_is_registered(rows, monkeypatch):
    own = {
        kind: [row for row in found if row.get("from", "xcam:").startswith("xcam:")]
        for kind, found in rows.items()
    }
    stored = json.loads(catalog._FILE.read_text("utf-8"))
    assert stored == json.loads(json.dumps(own)), "run `make readme`"


@pytest.mark.parametrize("command", [["methods"], ["metrics", "--long"], ["models"], ["recipes"]])
def test_lists_need_no_torch(command):
    assert call(*command).stdout.decode() == run(*command).stdout


def test_lists_are_json_for_scripts(rows):
    assert json.loads(run("methods", "--json").stdout) == rows["methods"]


def test_recipes_and_models_are_all_listed():
    lines = run("recipes").stdout.splitlines()
    assert lines[0].split() == ["name", "title", "source"]
    assert [line.split()[0] for line in lines[1:]] == xcam.recipes.names()
    for line in lines[1:]:
        recipe = xcam.recipes.read(line.split()[0])
        assert f"  {recipe['title']}  " in line
        assert line.endswith(f"  {recipe['source']}")
    models = [line.split()[0] for line in run("models").stdout.splitlines()[1:]]
    assert models == xcam.models.list_models()


class Distribution:
    name = "other"


class EntryPoint:
    dist = Distribution()


def test_plugins_of_others_are_looked_for(monkeypatch):
    """The file does not know them."""
    monkeypatch.setattr(catalog.importlib.metadata, "entry_points", lambda group: [EntryPoint()])
    monkeypatch.setattr(catalog, "make_catalog", lambda: {"models": [{"name": "a", "from": "b"}]})
    assert run("models").stdout.splitlines()[1:] == ["a     b"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("xcam met", ["methods", "metrics"]),
        ("xcam check gradcam", ["gradcam", "gradcam_plusplus"]),
        ("xcam evaluate --methods rise,gradcam_", ["rise,gradcam_plusplus"]),
        ("xcam fit --recipe mnist_", ["mnist_simple_cnn"]),
    ],
)
def test_words_are_completed_without_torch(words, expected):
    number = str(len(words.split()) - 1)
    done = call(_XCAM_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=number)
    found = done.stdout.decode().split()
    assert set(expected) <= set(found), done
    assert all(name.startswith(words.split()[-1]) for name in found)


@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_lists_are_utf8_in_a_console_that_claims_ascii(variables):
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", **variables}
    done = call("metrics", "--long", **plain)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "(−∞, 1]" in done.stdout.decode("utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
@pytest.mark.parametrize("command", ["methods", "--help"])
def test_closed_pipe_is_no_error(command):
    reader, writer = os.pipe()
    os.close(reader)
    code = LISTING.format([command])
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def read_fields(entry):
    head, *lines, last = entry.splitlines()
    assert re.fullmatch(r"@\w+\{\w+,", head), entry
    assert last == "}"
    found = [re.fullmatch(r"  (\w+) = \{(.*)\},", line) for line in lines]
    assert all(found), entry
    assert all(line.count("{") == line.count("}") for line in lines)
    return {match[1]: match[2] for match in found}


def test_everything_with_a_paper_is_cited(rows):
    used = set()
    for row in rows["methods"] + rows["metrics"]:
        paper = row.get("paper", row.get("source"))
        if not paper:
            continue
        used.add(entry := citing.find_entry(row))
        fields = read_fields(entry)
        assert {"title", "author", "year"} <= fields.keys(), row["name"]
        for year in re.findall(r"\b(?:19|20)\d\d\b", paper.split(";")[0])[:1]:
            assert fields["year"] == year, row["name"]
        first = citing._spell_plainly(paper.split()[0])
        if not first.startswith("arxiv"):
            assert first in citing._spell_plainly(entry), row["name"]
        for number in re.findall(r"arXiv:([\d.]+)", paper.split(";")[0]):
            assert fields["eprint"] == number, row["name"]
    assert [entry for entry in citing.read_references() if entry not in used] == []


def test_cite_takes_any_spelling_and_prints_a_paper_once():
    shown = run("cite", "Grad-CAM", "guided_gradcam", "ig").stdout
    assert shown.count("@") == 2
    assert "title = {Axiomatic Attribution for Deep Networks}," in shown
    assert "the nearest are gradcam" in refused("cite", "gradcan")
    assert refused("cite", "random") == "random comes from no paper: there is nothing to cite"


def test_plugin_is_cited_by_what_its_spec_says():
    row = {"name": "mine", "title": "MyCAM", "paper": "Me et al., 2025, arXiv:2501.00001"}
    assert read_fields(citing.find_entry(row)) == {
        "title": "{MyCAM}", "note": row["paper"], "author": "Me and others", "year": "2025",
        "eprint": "2501.00001", "archiveprefix": "arXiv",
    }  # fmt: skip


def list_options():
    import typer

    group = typer.main.get_command(cli.app)
    for name, command in {"xcam": group, **group.commands}.items():
        for option in command.params:
            yield f"{name} {option.name}", option.help or ""


@pytest.mark.parametrize(("option", "text"), list(list_options()))
def test_help_of_each_option_is_a_sentence(option, text):
    assert len(text.split()) > 3, text
    assert text[0].isupper() or text.startswith("`"), text
    assert text.endswith("."), text
