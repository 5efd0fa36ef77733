"""The example of attention that is compared from model to model, on a tiny scale."""

import pandas as pd
import pytest
import stability_of_attention as example
import torch

import xcam
from xcam.explanations.folder import StoredMaps

TINY = ["--models", "2", "--epochs", "1", "--images", "32", "--test-images", "8", "--depth", "8"]


@pytest.fixture(scope="module")
def explained():
    """The method and the net of each explanation."""
    return []


@pytest.fixture(scope="module")
def run(tmp_path_factory, explained):
    """The folder, and what is printed of it."""
    out, explain = tmp_path_factory.mktemp("stability"), xcam.explain

    def kept(net, *given, **named):
        found = explain(net, *given, **named)
        explained.append((found.method, net))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xcam, "explain", kept)
        return out, example.compare(example.parse_arguments(["--out", str(out), *TINY]))


def test_explained_methods_are_those_of_the_trained_heads(run, explained):
    names = [method.spec.name for method, _ in explained]
    assert names == ["lficam"] * 4 + ["abn"] * 4
    assert all(method == net.method for method, net in explained)


def test_table_has_a_row_per_method_trained_and_untrained(run):
    _, table = run
    assert list(zip(table["method"], table["nets"], strict=True)) == [
        ("lficam", "trained"), ("lficam", "untrained"), ("abn", "trained"), ("abn", "untrained")
    ]  # fmt: skip
    assert table.drop(columns=["method", "nets"]).stack().between(0, 1).all()


def test_maps_are_left_for_the_command(run):
    out, table = run
    for line in table.to_dict("records"):
        folders = [out / line["nets"] / line["method"] / number for number in "01"]
        assert all(len(list(folder.glob("*.npy"))) == 8 for folder in folders)
        found = float(xcam.stability_iou(*folders).mean())
        assert found == pytest.approx(line["IoU"]) == pytest.approx(line["lowest"])
        assert found < 1  # two models, not one twice
        maps = [StoredMaps(folder) for folder in folders]
        a, b = (torch.stack([each.load(name) for name in each.ids]) for each in maps)
        chance = float(xcam.stability_iou(a, b[[7, 0, 1, 2, 3, 4, 5, 6]]).mean())
        assert line["other images"] == pytest.approx(chance)


def test_trained_nets_are_trained(run):
    out, _ = run
    for method in example.METHODS:
        maps = [
            StoredMaps(out / kind / method / "0").load("000000")
            for kind in ("trained", "untrained")
        ]
        assert not torch.equal(*maps)


def test_command_prints_the_table(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(example, "compare", lambda options: pd.DataFrame({"IoU": [0.5]}))
    example.main(["--out", str(tmp_path), *TINY])
    assert capsys.readouterr().out.split() == ["IoU", "0.500"]
