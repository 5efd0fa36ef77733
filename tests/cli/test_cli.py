import re
import subprocess
import sys
import warnings

import pytest
import torch
from commands import refused, run

import xcam
from xcam import cli, registry
from xcam.cli import nets
from xcam.errors import XcamWarning
from xcam.testing import CheckResult


def test_help_imports_nothing_heavy():
    code = (
        "import sys, xcam.cli\n"
        "try: xcam.cli.app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'pluggy', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in (
        "methods",
        "metrics",
        "models",
        "cite",
        "plugins",
        "explain",
        "evaluate",
        "fit",
        "recipes",
        "report",
        "stability",
        "cues",
        "check",
    ):
        assert f"\n  {command} " in done.stdout


def test_python_dash_m():
    command = [sys.executable, "-m", "xcam", "--version"]
    assert subprocess.check_output(command, text=True).strip() == xcam.__version__


def test_methods_lists_every_method_with_its_owner():
    lines = run("methods").stdout.splitlines()
    assert lines[0].split() == ["name", "title", "family", "cost", "from"]
    assert [line.split()[0] for line in lines[1:]] == xcam.list_methods()
    for line in lines[1:]:
        spec = xcam.get_method(line.split()[0]).spec
        assert f" {spec.title} " in line
        assert f" {spec.family} " in line
        assert line.endswith(registry.installed().owners[spec.name])
    column = lines[0].index("title")
    assert all(line[column - 1] == " " != line[column] for line in lines)


def test_metrics_lists_every_metric_with_its_owner():
    lines = run("metrics").stdout.splitlines()
    assert lines[0].split() == ["name", "title", "better", "range", "truth", "cost", "from"]
    assert [line.split()[0] for line in lines[1:]] == xcam.list_metrics()
    for line in lines[1:]:
        spec = xcam.get_metric(line.split()[0]).spec
        for cell in (spec.title, spec.direction, spec.interval, spec.truth, spec.cost):
            assert f" {cell} " in line
        assert line.endswith(registry.installed().owners[spec.name])


def test_metrics_tells_formula_source_and_defaults_if_asked():
    lines = run("metrics", "--long").stdout.splitlines()
    assert lines[0].endswith("settings")
    for line in lines[1:]:
        cls = xcam.get_metric(line.split()[0])
        assert f" {cls.spec.formula} " in line
        assert f" {cls.spec.paper} " in line
        assert line.endswith(repr(cls()))


def test_plugins_lists_owners_and_failures(monkeypatch):
    monkeypatch.setitem(registry.installed().failures, "bad:methods", "ImportError: no foo")
    lines = run("plugins").stdout.splitlines()
    own = sum(owner == "xcam:methods" for owner in registry.installed().owners.values())
    assert ["xcam:methods", f"brings {own}"] in [line.split(maxsplit=1) for line in lines]
    assert ["bad:methods", "failed: ImportError: no foo"] in [
        line.split(maxsplit=1) for line in lines
    ]


@pytest.fixture
def checked(monkeypatch):
    """Makes `xcam check` get these results, and records of what."""
    results, asked = [], []
    monkeypatch.setattr(
        "xcam.testing.check_method", lambda n: asked.append(("method", n)) or results
    )
    monkeypatch.setattr(
        "xcam.testing.check_metric", lambda n: asked.append(("metric", n)) or results
    )
    return results, asked


@pytest.mark.parametrize("name", ["gradcam", "insertion"])
@pytest.mark.parametrize(("outcome", "code"), [("kept", 0), ("excused", 0), ("broken", 1)])
def test_check_prints_the_contract_table(checked, outcome, code, name):
    results, asked = checked
    results += [CheckResult("shape", "kept"), CheckResult("batching", outcome, "maps differ")]
    done = run("check", name)
    assert asked == [("method" if name == "gradcam" else "metric", name)]
    assert done.exit_code == code
    *lines, summary = done.stdout.splitlines()
    rows = [line.split(maxsplit=2) for line in lines]
    assert rows == [["check", "outcome"], ["shape", "kept"], ["batching", outcome, "maps differ"]]
    counts = {"kept": "2 kept, 0 excused, 0 broken", "excused": "1 kept, 1 excused, 0 broken"}
    assert summary == counts.get(outcome, "1 kept, 0 excused, 1 broken by 1 cause")


def test_check_groups_what_one_line_of_the_author_breaks(checked):
    results, _ = checked
    for check in ("first", "second", "third", "fourth"):
        message = f"MyCAM raised KeyError: {check}"
        results.append(CheckResult(check, "broken", message, "my_cam.py:41"))
    results.append(CheckResult("fifth", "broken", "MyCAM raised KeyError: fifth", "my_cam.py:7"))
    results.append(CheckResult("sixth", "kept"))
    done = run("check", "gradcam", "--broken")
    assert done.exit_code == 1
    _, first, second, summary = done.stdout.splitlines()
    assert re.split("  +", first) == [
        "first, second and 2 more",
        "broken",
        "MyCAM raised KeyError: first",
        "my_cam.py:41",
    ]
    assert second.split()[-1] == "my_cam.py:7"
    assert summary == "1 kept, 0 excused, 5 broken by 2 causes"


def test_explain_writes_an_overlay_and_says_what_was_seen(net, picture, tmp_path):
    done = run("explain", picture, "--no-caption", "--out", tmp_path / "new" / "folder")
    assert (done.exit_code, done.stderr) == (0, "")
    assert net.loaded == [("torchvision:resnet50", "DEFAULT")]

    image = xcam.read_image(picture, (16, 24))[None]
    expected = xcam.explain(net, image)
    written = tmp_path / "new" / "folder" / "photo.gradcam.png"
    pixels = (expected.overlay([picture])[0] * 255).round() / 255
    assert torch.equal(xcam.read_image(written), pixels)
    assert pixels.shape == (3, 20, 30)  # of the photograph, not of the net's images
    recipe, line = done.stdout.splitlines()
    assert recipe == repr(expected.method)
    best = expected.logits[0].softmax(0).topk(3)
    names = [("ant", "bee", "cat", "class 3")[i] for i in best.indices]
    seen = ", ".join(f"{name} {p:.1%}" for name, p in zip(names, best.values, strict=True))
    assert line == f"{picture}: {seen} -> {written}"


@pytest.mark.parametrize("spelling", ["Grad-CAM++", "gradcam_plusplus", "GRADCAM++"])
def test_an_overlay_is_named_by_the_registered_name(net, picture, tmp_path, spelling):
    done = run("explain", picture, "--method", spelling, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    (written,) = (tmp_path / "out").iterdir()
    assert written.name == "photo.gradcam_plusplus.png"


def test_single_logit_is_printed_as_its_sigmoid(net, picture, tmp_path):
    net.model.classifier = torch.nn.Linear(net.model.classifier.in_features, 1)
    torch.nn.init.zeros_(net.model.classifier.weight)
    torch.nn.init.constant_(net.model.classifier.bias, -1)  # 1 / (1 + e) = 26.9 %
    done = run("explain", picture, "--out", tmp_path)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1].startswith(f"{picture}: ant 26.9% -> ")


def test_explain_passes_everything_on(net, picture, tmp_path):
    saved = tmp_path / "maps.safetensors"
    done = run(
        "explain", picture, "--model", "toy:net", "--weights", "none", "--target", "3",
        "--methods", "gradcam(relu=true, output=prob, layer=model.features.0)",
        "--batch-size", "1", "--precision", "bf16", "--out", tmp_path, "--save", saved,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert net.loaded == [("toy:net", "none")]
    explanation = xcam.load(saved)
    assert explanation.method.parameters() == {
        "layer": "model.features.0", "output": "prob", "relu": True, "rendering": None
    }  # fmt: skip
    assert explanation.target.tolist() == [3]
    if int(explanation.logits.argmax()) != 3:
        assert "; explained: class 3 " in done.stdout
    image = xcam.read_image(picture, (16, 24))[None]
    same = xcam.explain(net, image, 3, explanation.method, precision="bf16")
    assert torch.equal(same.maps, explanation.maps)


def test_explain_contrasts_two_classes(net, picture, tmp_path):
    saved = tmp_path / "maps.safetensors"
    done = run(
        "explain", picture, "--target", "3", "--contrast", "bee", "--out", tmp_path,
        "--save", saved, "--no-caption",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "; rather than: bee " in done.stdout
    explanation = xcam.load(saved)
    assert (explanation.target.tolist(), explanation.contrast.tolist()) == ([3], [1])
    pixels = (explanation.overlay([picture])[0] * 255).round() / 255
    assert torch.equal(xcam.read_image(tmp_path / "photo.gradcam.png"), pixels)
    sentence = "the contrast of image 0 is its target"
    again = ("explain", picture, "--target", "1", "--contrast", "1", "--out", tmp_path)
    assert sentence in refused(*again)


@pytest.mark.parametrize(("asked", "name"), [([], "lcam_fm"), (["--method", "gradcam"], "gradcam")])
def test_trained_net_is_explained_by_its_method_unless_another_is_given(
    picture, tmp_path, asked, name
):
    plain = xcam.models.load("xcam:small_cnn", num_classes=4, mean=(0.5,) * 3, std=(0.5,) * 3)
    trained = xcam.get_method("lcam_fm")().attach(plain)
    trained.fitted = True
    file = tmp_path / "net.safetensors"
    xcam.save(trained, file)
    done = run("explain", picture, "--model", file, "--out", tmp_path / "out", *asked)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(name.replace("lcam_fm", "LCAMFm").replace("gradcam", "GradCAM"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"photo.{name}.png"]


def test_warnings_are_lines_on_stderr(net, picture, tmp_path, monkeypatch):
    torch.nn.init.zeros_(net.model.classifier.weight)
    done = run("explain", picture, "--out", tmp_path)
    assert done.exit_code == 0
    assert done.stderr == "xcam: image 0: the map is flat, it points nowhere\n"
    with pytest.warns(XcamWarning, match="ours"):  # the user's own settings are back
        warnings.warn("ours", XcamWarning, stacklevel=1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--method", "gradcan"], "no method 'gradcan': did you mean gradcam"),
        (["--method", "gradcam(layer=featuers)"], "featuers"),
        (["--target", "9"], "target 9 is out of range: the model has 4 classes, 0 to 3"),
        (["--target", "cut"], "no class of the model is called 'cut'; the nearest are cat"),
        (
            ["--target", "label"],
            "labels come from one folder with a folder for each class, or from",
        ),
        (["--worst", "3"], "labels come from one folder"),
        (["--method", "gradcam(relu"], "--methods takes names, with settings as in"),
        (["--method", "gradcam(masks=5)"], "gradcam has no parameter 'masks'"),
        (["--method", "gradcam,rise", "--save", "m"], "--save writes the maps of one method, got"),
        (["--set", "depth"], "--set takes name=value, such as num_classes=7, got 'depth'"),
        (["--mean", "a,b"], "--mean takes numbers, one a channel, such as 0.485,0.456,0.406, got"),
        (["--batch-size", "0"], "batch_size must be a positive int or None, got 0"),
        (["--precision", "fp8"], "precision must be 'full', 'bf16' or 'fp16', got 'fp8'"),
        (["--device", "toaster"], "--device 'toaster' cannot be used"),
        (["--save", "none/maps.safetensors"], "no folder 'none' for --save"),
    ],
)
def test_mistakes_are_one_sentence(net, picture, tmp_path, arguments, sentence):
    assert sentence in refused("explain", picture, "--out", tmp_path, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_wrong_pictures_are_one_sentence(net, picture, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    out = ["--out", tmp_path]
    assert "no picture at" in refused("explain", tmp_path / "none.png", *out)
    assert "is not a picture that can be read" in refused("explain", tmp_path / "text.png", *out)
    assert "exists" in refused("explain", picture, "--out", picture)


def test_traceback_on_request(net, picture):
    result = run("--traceback", "explain", picture, "--worst", "1")
    assert isinstance(result.exception, ValueError)


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("0.5", 0.5), ("True", True), ("true", True), ("false", False),
     ("None", None), ("(1, 2)", (1, 2)), ("mean", "mean"),
     ("'5'", "5"), ("a=b", "a=b"), ("layer4.1", "layer4.1")],
)  # fmt: skip
def test_values_of_settings_are_literals_or_strings(text, value):
    parsed = nets.parse_settings([f"name={text}"])
    assert parsed == {"name": value}
    assert type(parsed["name"]) is type(value)


def test_truths_are_written_alike_everywhere(net, picture, tmp_path):
    """As in recipes, too."""
    done = run("explain", picture, "--method", "gradcam(relu=true)", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert "relu=True" in done.stdout
    seen = []
    cli.literals.parse_calls("--methods", "a(b=true, c=false)", lambda *one: seen.append(one))
    assert seen == [("a", {"b": True, "c": False})]
