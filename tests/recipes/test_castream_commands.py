"""CA-Stream's commands on docs/originals.md: recipes are read, evaluations run on small data."""

import itertools

import pytest
import torch
from commands import run
from data_files import write_picture
from original_commands import read_commands

import xcam
from xcam import recipes
from xcam.cli import fitting

COMMANDS = read_commands("CA-Stream")
EVALUATIONS = [words for words in COMMANDS if words[0] in ("evaluate", "score")]


def take(words, option):
    """The values that a command gives an option."""
    return [value for name, value in itertools.pairwise(words) if name == option]


def test_the_page_has_a_command_for_each_step():
    assert {words[0] for words in COMMANDS} == {"fit", "evaluate", "score"}
    assert len(EVALUATIONS) >= 6


@pytest.mark.parametrize("words", [w for w in COMMANDS if w[0] == "fit"], ids=" ".join)
def test_recipes_take_the_changes(words):
    (name,) = take(words, "--recipe")
    changes = [change.replace("RUN", "run") for change in take(words, "--set")]
    found = recipes.read(name, fitting.parse_changes(changes))
    assert found["fit"]["method"] == "castream"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A net with an untrained stream, pictures and lists."""
    folder = tmp_path_factory.mktemp("castream")
    lines = [f"{k}.png,{k % 3}\n" for k in range(4)]
    for k in range(4):
        write_picture(folder / "DATA" / f"{k}.png", 32, 32, seed=k)
    (folder / "val.csv").write_text("".join(lines))
    (folder / "wrong.txt").write_text("1\n3\n")
    torch.manual_seed(0)
    model = xcam.models.load("xcam:cifar_resnet", depth=8, num_classes=3)
    net = xcam.get_method("castream")().attach(model, torch.zeros(1, 3, 32, 32))
    net.fitted = True
    (folder / "RUN").mkdir()
    xcam.save(net, folder / "RUN" / "last.safetensors")
    return folder


def test_evaluations_run_one_after_the_other(trained, monkeypatch):
    monkeypatch.chdir(trained)
    for number, words in enumerate(EVALUATIONS):
        out = f"EVAL{number}" if number and words[0] == "evaluate" else "EVAL"
        words = [out if word == "EVAL" else word for word in words]
        done = run(*words, "--size", "32", "--no-controls")
        assert done.exit_code == 0, (words, done.output)
        assert "first error" not in done.stdout, done.stdout
