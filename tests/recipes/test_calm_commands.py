"""CALM's commands on docs/coming_from/originals.md run, on small data in the published layouts."""

import re

import pytest
import torch
from commands import run
from data_files import write_cub, write_picture
from original_commands import read_commands

import xcam
from xcam import recipes
from xcam.data.cub_files import CubFiles


def write_lists(root, folder):
    """The lists of CUB that come with the published code: labels, ids and boxes."""
    files = CubFiles(root)
    for split in ("train", "test"):
        chosen = [k for k, is_train in enumerate(files.is_train) if is_train == (split == "train")]
        lines = {
            "class_labels": [f"{files.names[k]},{files.labels[k]}" for k in chosen],
            "image_ids": [files.names[k] for k in chosen],
            "localization": [f"{files.names[k]},6,4,36,24" for k in chosen],
        }
        (folder / split).mkdir(parents=True)
        for name, values in lines.items():
            (folder / split / f"{name}.txt").write_text("\n".join(values))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a training of the recipe's two steps, by the command."""
    folder = tmp_path_factory.mktemp("calm")
    write_lists(write_cub(folder), folder / "metadata" / "CUB")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (command,) = (
            words
            for words in read_commands("CALM")
            if words[0] == "fit" and "--set" not in words and "calm_cub_resnet50" in words
        )
        fit_small(command)
    return folder


def fit_small(command):
    """Run a training's command with a small net, for an epoch of small images."""
    small = "[{name='Resize', size=[36, 36]}, {name='RandomCrop', size=32}]"
    changes = {
        "model.weights": "none", "model.depth": 18, "model.num_classes": 3, "epochs": 1,
        "batch_size": 2, "data.train": small, "data.test": "[{name='Resize', size=[32, 32]}]",
    }  # fmt: skip
    words = [word.replace("DATA", "CUB_200_2011/images") for word in command]
    done = run(*words, *(f"--set={name}={value}" for name, value in changes.items()))
    assert done.exit_code == 0, done.output


def test_the_page_has_a_command_for_each_script():
    commands = read_commands("CALM")
    assert {words[0] for words in commands} == {"fit", "evaluate", "cues", "explain"}
    assert len(commands) >= 13


@pytest.mark.parametrize(
    "words", [words for words in read_commands("CALM") if words[0] != "fit"], ids=" ".join
)
def test_commands_run(trained, words, monkeypatch):
    monkeypatch.chdir(trained)
    names = {"METADATA": "metadata", "PICTURES": f"CUB_200_2011/images/{CubFiles('.').names[0]}"}
    names["DATA"] = "CUB_200_2011/images"
    words = [
        re.sub("METADATA|PICTURES|DATA", lambda match: names[match[0]], word) for word in words
    ]
    size = {"evaluate": ["--size", "32", "--fraction", "0.17"], "cues": ["--size", "32"]}
    done = run(*words, *size.get(words[0], ["--resize", "36"]))
    assert done.exit_code == 0, done.output
    assert "nan" not in done.stdout or words[0] == "evaluate"


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (words, dict(re.findall(r"(\w+)=(\w+)", " ".join(words))))
        for words in read_commands("CALM")
        if words[0] == "fit" and "--set" in words and "calm_cub_resnet50" in words
    ],
    ids=str,
)
def test_changes_of_the_recipe_train(trained, words, settings, monkeypatch):
    monkeypatch.chdir(trained)
    out = "-".join(settings.values())
    fit_small([out if word == "RUN" else word for word in words])
    net = xcam.load(trained / out / "last.safetensors")
    known = net.method.parameters()
    for name, value in settings.items():
        if name == "large_feature_map":
            assert xcam.explain(net, torch.rand(1, 3, 64, 64), 1).raw.shape == (1, 4, 4)
        else:
            assert known["objective" if name == "loss" else name] == value


def test_recipe_for_imagenet_trains_in_its_layout(tmp_path):
    wnids = ("n01440764", "n01443537", "n01484850")
    for number, wnid in enumerate(wnids):
        for k in range(2):
            write_picture(tmp_path / "train" / wnid / f"{wnid}_{k}.JPEG", 40, 40, number + 3 * k)
        name = f"ILSVRC2012_val_0000000{number + 1}.JPEG"
        write_picture(tmp_path / "val" / wnid / name, 40, 40, number)
    small = [{"name": "Resize", "size": [36, 36]}, {"name": "RandomCrop", "size": 32}]
    changes = {"model.weights": None, "model.depth": 18, "model.num_classes": 3, "epochs": 1}
    changes |= {"batch_size": 3, "data.train": small, "data.test": small[:1]}
    recipe = recipes.read("calm_imagenet_resnet50", changes)
    net = recipes.fit(recipe, tmp_path, tmp_path / "run")
    assert net.categories == wnids
    explanation = xcam.explain(
        net, xcam.read_image(tmp_path / "val" / wnids[0] / "ILSVRC2012_val_00000001.JPEG", 32)[None]
    )
    assert explanation.raw.shape == (1, 4, 4)
