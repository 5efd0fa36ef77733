import numpy as np
import pytest
from commands import refused, run
from data_files import write_mnist
from evaluations import Pictures, rows
from PIL import Image

import xcam
from xcam._evaluate.comparison import NamedArguments
from xcam.cli import literals
from xcam.methods import LCAMFm
from xcam.models import Normalized
from xcam.models.toy import GapNet
from xcam.models.whitebox.simple_cnn import SimpleCNN


def test_evaluate_prints_the_table_and_keeps_the_rows(nets, pictures, tmp_path):
    out = tmp_path / "out"
    done = run(
        "evaluate", "--data", pictures, "--methods", "gradcam, rise(n_masks=5)", "--metrics",
        "sparseness", "--load", "2", "--out", out,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert nets == [("torchvision:resnet50", "DEFAULT")]
    data = xcam.data.folder(pictures, 16)
    methods = ["gradcam", xcam.get_method("rise")(n_masks=5)]
    net = {"torchvision:resnet50": Normalized(GapNet(seed=20), (0.5,), (0.5,))}
    expected = xcam.evaluate(net, data, methods, "sparseness")
    assert done.stdout == f"{expected.to_text(80)}\n"
    assert {row["image"] for row in rows(out)} == set(data.ids)
    assert len(list((out / "rows").iterdir())) == 3
    again = "evaluate", "--data", pictures, "--out", out, "--methods", "gradcam", "--metrics"
    assert run(*again, "sparseness", "--seed", "1").exit_code == 2
    grown = run(*again, "complexity")
    assert grown.exit_code == 0, grown.output
    first, *lines = grown.stdout.splitlines()
    assert ("complexity" in first, "sparseness" in first) == (True, True)
    assert any(line.startswith("rise") and " -" in line for line in lines)


def test_evaluate_passes_everything_on(nets, pictures, tmp_path, monkeypatch):
    calls, listed = [], tmp_path / "list.txt"
    (tmp_path / "out").mkdir()
    listed.write_text("".join(f"{name} 1\n" for name in xcam.data.folder(pictures).ids))
    monkeypatch.setattr(xcam, "evaluate", lambda *given, **named: calls.append((given, named)))
    done = run(
        "evaluate", "--data", listed, "--root", pictures, "--model", "a:b", "--model", "c:d",
        "--weights", "none", "--methods", "rise,smoothgrad(seed=1)",
        "--metrics", "deletion(preset=castream),road", "--target", "label", "--no-controls",
        "--fraction", "0.5", "--indices", "4,2", "--workers", "1", "--batch-size", "3",
        "--precision", "bf16",
        "--seed", "4", "--save-maps", "--size", "24", "--out", tmp_path / "out", "--long",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert nets == [("a:b", "none"), ("c:d", "none")]
    (((models, loader), named),) = calls
    assert list(models) == ["a:b", "c:d"]
    assert (loader.batch_size, loader.num_workers) == (16, 1)
    assert loader.dataset[0][0].shape == (3, 24, 24)
    metrics = [
        xcam.get_metric("deletion")(preset="castream", seed=4),
        xcam.get_metric("road")(seed=4),
    ]
    assert repr(named.pop("metrics")) == repr(metrics)
    assert named.pop("methods") == [
        NamedArguments("rise"),
        NamedArguments("smoothgrad", {"seed": 1}),
    ]
    assert named == {
        "maps": None, "target": "label", "controls": False, "fraction": 0.5, "indices": [4, 2],
        "batch_size": 3, "precision": "bf16", "seed": 4, "save_maps": True, "out": tmp_path / "out",
        "dry_run": False, "progress": True,
    }  # fmt: skip


def test_score_passes_everything_on(nets, pictures, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(xcam, "evaluate", lambda *given, **named: calls.append((given, named)))
    maps = [tmp_path / "mine", tmp_path / "yours"]
    for folder in maps:
        folder.mkdir()
    chosen = tmp_path / "wrong.txt"
    chosen.write_text("2\n0\n")
    done = run(
        "score", "--indices", chosen, "--maps", maps[0], "--maps", maps[1], "--data", pictures,
        "--model", "a:b",
        "--metrics", "road,deletion", "--target", "label", "--no-controls", "--fraction", "0.5",
        "--load", "3", "--workers", "1", "--batch-size", "2", "--precision", "fp16", "--seed", "4",
        "--size", "24", "--out", tmp_path / "out", "--dry-run",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (((models, loader), named),) = calls
    assert list(models) == ["a:b"]
    assert (loader.batch_size, loader.num_workers) == (3, 1)
    assert loader.dataset[0][0].shape == (3, 24, 24)
    metrics = [xcam.get_metric("road")(seed=4), xcam.get_metric("deletion")(seed=4)]
    assert repr(named.pop("metrics")) == repr(metrics)
    assert {name: str(folder) for name, folder in named.pop("maps").items()} == {
        folder.name: str(folder) for folder in maps
    }
    assert named == {
        "methods": (), "target": "label", "controls": False, "fraction": 0.5, "indices": [2, 0],
        "batch_size": 2,
        "precision": "fp16", "seed": 4, "out": tmp_path / "out", "dry_run": True,
        "progress": True,
    }  # fmt: skip


def test_maps_are_stored_and_then_scored(nets, pictures, tmp_path):
    """The two steps of CA-Stream's repository, on two of the images, by their labels."""
    listed = tmp_path / "val.csv"
    names = xcam.data.folder(pictures).ids
    listed.write_text("".join(f"{name},{k}\n" for k, name in enumerate(names)))
    same = ["--data", listed, "--root", pictures, "--size", "16", "--target", "label"]
    same += ["--indices", "0,3", "--no-controls"]
    made = run(
        "evaluate", *same, "--methods", "gradcam,layercam", "--table", "castream", "--save-maps",
        "--out", tmp_path / "made",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert "AD" in made.stdout
    maps, metrics = tmp_path / "made" / "maps" / "gradcam", "insertion(preset='castream')"
    scored = run("score", *same, "--maps", maps, "--metrics", metrics, "--out", tmp_path / "scored")
    assert scored.exit_code == 0, scored.output
    found, wanted = rows(tmp_path / "scored"), rows(tmp_path / "made")
    assert [row["target"] for row in found] == [0, 3]
    wanted = [r for r in wanted if (r["method"], r["metric"]) == ("gradcam", "I")]
    for one, other in zip(found, wanted, strict=True):
        assert one["values"] == pytest.approx(other["values"], abs=1e-3)


@pytest.mark.parametrize(
    ("given", "found"), [("1,two", "'two' in '1,two'"), ("none.txt", "'none.txt' in"), ("", "''")]
)
def test_indices_that_are_no_numbers_are_refused(nets, pictures, given, found):
    message = refused("evaluate", "--data", pictures, "--methods", "gradcam", "--indices", given)
    assert message.startswith("--indices takes numbers from 0, such as 3,5,8, or a file of them")
    assert found in message


def test_score_reads_the_maps_of_others(nets, pictures, tmp_path):
    data = xcam.data.folder(pictures, 16)
    for name in data.ids:
        path = (tmp_path / "mine" / name).with_suffix(".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.eye(16, dtype=np.float32))
    done = run(
        "score", "--maps", tmp_path / "mine", "--data", pictures, "--metrics", "sparseness",
        "--no-controls", "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = rows(tmp_path / "out")
    assert {(row["method"], row["error"]) for row in found} == {("mine", None)}
    assert [row["values"][0] for row in found] == pytest.approx([1 - 16 / 256] * 5)


def test_list_file_with_boxes_is_accepted_as_data(nets, pictures, tmp_path):
    names = xcam.data.folder(pictures, 16).ids
    text = "".join(f"{name} 1 2 2 9 9\n" for name in names)
    (tmp_path / "list.txt").write_text(text)
    done = run(
        "evaluate", "--data", tmp_path / "list.txt", "--root", pictures, "--metrics",
        "energy_pointing_game", "--target", "label", "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert {row["target"] for row in rows(tmp_path / "out")} == {1}
    assert {row["error"] for row in rows(tmp_path / "out")} == {None}


def test_published_data_set_is_evaluated_by_its_name(monkeypatch, tmp_path):
    """Its test images, at the model's size, with the labels that it has."""
    write_mnist(tmp_path / "data")
    net = Normalized(SimpleCNN(10, 1, 28), (0.5,), (0.5,), input_size=28)
    monkeypatch.setattr(xcam.models, "load", lambda name, weights=None: net)
    asked = ["evaluate", "--data", "fashion_mnist", "--metrics", "sparseness", "--no-controls"]
    assert "--data fashion_mnist needs --root, the folder that" in refused(*asked)
    out = tmp_path / "out"
    done = run(*asked, "--root", tmp_path / "data", "--target", "label", "--out", out)
    assert done.exit_code == 0, done.output
    test = xcam.data.load("fashion_mnist", tmp_path / "data").test
    assert [row["target"] for row in rows(out)] == list(test.labels)
    named = {"torchvision:resnet50": net}
    expected = xcam.evaluate(named, test, "gradcam", "sparseness", "label", controls=False)
    assert done.stdout == f"{expected.to_text(80)}\n"


def test_folder_has_precedence_over_a_published_set_of_that_name(
    nets, pictures, tmp_path, monkeypatch
):
    pictures.rename(tmp_path / "cifar10")
    monkeypatch.chdir(tmp_path)
    done = run("evaluate", "--data", "cifar10", "--metrics", "sparseness", "--out", "out")
    assert done.exit_code == 0, done.output
    assert {row["image"] for row in rows(tmp_path / "out")} == set(Pictures(5).ids)


def test_published_set_with_another_number_of_classes_is_refused(monkeypatch, tmp_path):
    write_mnist(tmp_path)
    net = Normalized(SimpleCNN(7, 1, 28), (0.5,), (0.5,), input_size=28)
    monkeypatch.setattr(xcam.models, "load", lambda name, weights=None: net)
    said = refused("evaluate", "--data", "fashion_mnist", "--root", tmp_path, "--target", "label")
    assert "numbers of its 10 classes (T-shirt/top, Trouser, Pullover, …)" in said
    assert "has 7 classes" in said


@pytest.mark.parametrize(
    "asked", [["--target", "label"], ["--metrics", "accuracy"], ["--table", "lcam"]]
)
def test_folders_that_are_not_the_models_classes_are_no_labels(nets, pictures, tmp_path, asked):
    """Class 0 of ImageNet is a tench, and no cat because a folder of that name comes first."""
    Image.new("RGB", (16, 16)).save(pictures / "class0" / "more.png")
    said = refused("evaluate", "--data", pictures, "--out", tmp_path / "out", *asked)
    folders = len(list(pictures.iterdir()))
    assert f"the labels of the data are the numbers of its {folders} classes (class0, " in said
    assert "'torchvision:resnet50' has 5 classes: give a folder for each class" in said


def test_without_methods_it_is_the_models_own(monkeypatch, pictures, tmp_path):
    net = LCAMFm(sigmoid=True).attach(Normalized(GapNet(), (0.5,), (0.5,), input_size=16))
    net.fitted = True
    monkeypatch.setattr(xcam.models, "load", lambda name, weights=None: net)
    asked = ["evaluate", "--data", pictures, "--metrics", "sparseness", "--no-controls"]
    done = run(*asked)
    assert done.exit_code == 0, done.output
    named = {"torchvision:resnet50": net}
    data = xcam.data.folder(pictures, 16)
    expected = xcam.evaluate(named, data, "lcam_fm", "sparseness", controls=False)
    assert done.stdout == f"{expected.to_text(80)}\n"
    assert run(*asked, "--methods", "lcam_fm").stdout == done.stdout
    assert run(*asked, "--methods", "lcam_fm(sigmoid=False)").stdout != done.stdout


def test_missing_head_is_reported_in_one_sentence(nets, pictures, tmp_path):
    out = tmp_path / "out"
    said = refused("evaluate", "--data", pictures, "--methods", "lcam_fm,gradcam", "--out", out)
    assert "model 'torchvision:resnet50': lcam_fm needs a model with its head" in said
    assert not out.exists()


def test_what_failed_is_said_below_the_table(nets, pictures, tmp_path):
    methods = "gradcam(layer=none),hirescam(layer=none),layercam"
    done = run("evaluate", "--data", pictures, "--methods", methods, "--metrics", "sparseness")
    assert done.exit_code == 0, done.output
    counts, reason = done.stdout.splitlines()[-2:]
    assert counts == "1 model, 6 methods, 1 metric, 5 rows each, 10 errors"
    assert reason.startswith("first error of gradcam, hirescam (torchvision:resnet50): Unknown")
    assert "the model has no layer 'none'" in reason


def test_dry_run_prints_the_estimate_alone(nets, pictures, tmp_path):
    out = tmp_path / "out"
    done = run("evaluate", "--data", pictures, "--metrics", "sparseness", "--dry-run", "--out", out)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1].endswith("for 5 images, measured on 5")
    assert "direction" not in done.stdout
    assert not out.exists()


def test_control_c_says_that_it_goes_on(nets, pictures, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(xcam, "evaluate", interrupted)
    done = run("evaluate", "--data", pictures, "--out", tmp_path / "out")
    assert (done.exit_code, done.stderr) == (130, "xcam: stopped; the same command resumes\n")
    done = run("evaluate", "--data", pictures)
    assert (done.exit_code, done.stderr) == (130, "xcam: stopped\n")


def test_errors_end_a_strict_evaluation(nets, pictures, tmp_path):
    """A file of the list that is missing is a row, as a broken one is."""
    names = xcam.data.folder(pictures).ids
    listed = tmp_path / "list.csv"
    listed.write_text("".join(f"{name},cat\n" for name in [*names, "gone.png"]))
    asked = ["evaluate", "--data", listed, "--root", pictures, "--metrics", "sparseness"]
    asked += ["--size", "16", "--no-controls", "--model", "mine=a:b"]
    done = run(*asked, "--strict", "--quiet", "--csv")
    assert done.exit_code == 1
    header, line = done.stdout.splitlines()
    found = dict(zip(header.split(","), line.split(","), strict=True))
    assert (found["model"], found["rows"], found["errors"]) == ("mine", "5", "1")
    first, last = done.stderr.splitlines()
    assert first.startswith("xcam: first error of gradcam (mine): FileNotFoundError: no picture at")
    assert last == "xcam: 1 row could not be scored"
    assert run(*asked, "--quiet").exit_code == 0
    assert "two models are called 'a:b'" in refused(*asked[:-2], "--model", "a:b", "--model", "a:b")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--methods", "gradcan"], "no method 'gradcan': did you mean gradcam"),
        (["--metrics", "sparsness"], "no metric 'sparsness'"),
        (["--methods", "rise(masks=3)"], "rise has no parameter 'masks'"),
        (["--methods", "rise(3)"], "--methods takes names, with settings as in"),
        (["--metrics", "deletion(step="], "--metrics takes names, with settings as in"),
        (["--metrics", "deletion(__import__('os'))"], "--metrics takes names"),
        (["--target", "cat"], "target must be 'predicted' or 'label', got 'cat'"),
        (["--weights", "a", "--weights", "b"], "give --weights once, or one for each of the 1"),
        (["--maps", "x/a", "--maps", "y/a"], "two folders of maps have the same name"),
        (["--device", "toaster"], "--device 'toaster' cannot be used"),
        (["--fraction", "0"], "fraction must be above 0 and at most 1, got 0.0"),
        (["--metrics", "max_box_acc"], "the metric 'max_box_acc' needs boxes"),
        (["--size", "-1"], "size must be a positive int, got -1"),
    ],
)
def test_mistakes_are_one_sentence(nets, pictures, tmp_path, arguments, sentence):
    out = tmp_path / "out"
    assert sentence in refused("evaluate", "--data", pictures, "--out", out, *arguments)
    assert not out.exists()


def test_data_that_is_not_there_is_one_sentence(nets):
    assert "no list at 'nowhere'" in refused("evaluate", "--data", "nowhere")


def test_models_of_different_sizes_need_one(monkeypatch, pictures):
    def load(name, weights=None):
        return Normalized(GapNet(), (0.5,), (0.5,), input_size=int(name))

    monkeypatch.setattr(xcam.models, "load", load)
    sentence = "the models take pictures of different sides, [16, 24]; give one --size"
    assert sentence in refused("evaluate", "--data", pictures, "--model", "16", "--model", "24")


def test_settings_are_literals_or_words():
    seen = []
    literals.parse_calls("--x", "a, b(c=[1, 2], d=word), e(f=-0.5)", lambda *one: seen.append(one))
    assert seen == [("a", {}), ("b", {"c": [1, 2], "d": "word"}), ("e", {"f": -0.5})]
    seen.clear()
    text = "a(layer=layer4.1, size=1e-3, name='b.c-d'), my-cam(e=model.layer3)"
    literals.parse_calls("--x", text, lambda *one: seen.append(one))
    assert seen == [
        ("a", {"layer": "layer4.1", "size": 1e-3, "name": "b.c-d"}),
        ("my-cam", {"e": "model.layer3"}),
    ]
    seen.clear()
    literals.parse_calls("--x", "my-cam, other.cam", lambda *one: seen.append(one))
    assert seen == [("my-cam", {}), ("other.cam", {})]
