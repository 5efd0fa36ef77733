"""Packages of others: a good one is found, a bad one is named and harms nothing."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import commands
import numpy as np
import pytest
import torch
from PIL import Image
from small_mnist import write_mnist

import xcam
from xcam.errors import PluginWarning, UnknownNameError
from xcam.models import loading
from xcam.registry import Registry
from xcam.testing import check_method, method_checks, metric_checks

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"

METHOD = """
    from dataclasses import dataclass
    from typing import ClassVar

    import xcam

    @dataclass(frozen=True)
    class Grey(xcam.Method):
        spec: ClassVar[xcam.MethodSpec] = xcam.MethodSpec(
            name="NAME", title="Grey", paper="", family="control", cost="none",
            class_specific=False, signed=False, normalized=True,
        )

        def maps(self, model, images, target):
            return images.new_full(images.shape[:1] + images.shape[2:], 0.5)

    @xcam.hookimpl
    def xcam_methods():
        return [Grey]
"""


def method(name, **changes):
    source = METHOD.replace("NAME", name)
    for old, new in changes.values():
        assert old in source
        source = source.replace(old, new)
    return source


def hook(body, signature="xcam_methods()"):
    """The good module, whose hook is another."""
    head = textwrap.dedent(METHOD.split("@xcam.hookimpl")[0])
    return f"{head}\n@xcam.hookimpl\ndef {signature}:\n    {body}\n"


def publish(folder, package, source, entry="main", suffix=""):
    """Lays a package and its metadata into a folder as an installer would."""
    module = package.replace("-", "_")
    (folder / f"{module}.py").write_text(textwrap.dedent(source))
    info = folder / f"{module}{suffix}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[xcam]\n{entry} = {module}\n")


@pytest.fixture
def forgetful(tmp_path_factory):
    """What is imported from a temporary folder during the test is forgotten afterwards."""
    xcam.list_methods()  # this process's own discovery must not find what the test publishes
    yield
    folder = str(tmp_path_factory.getbasetemp())
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(folder):
            del sys.modules[name]


@pytest.fixture
def site(tmp_path, monkeypatch, forgetful):
    """A folder on sys.path."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def load(*folders, own=("xcam.methods",)):
    """A registry of xcam itself and of what was published into the folders, and its warnings."""
    found = [
        entry_point
        for distribution in importlib.metadata.distributions(path=[str(f) for f in folders])
        for entry_point in distribution.entry_points.select(group="xcam")
    ]
    ours = [e for e in importlib.metadata.entry_points(group="xcam") if e.value in own]
    registry = Registry()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        registry.load([*found, *ours])
    assert {entry.category for entry in caught} <= {PluginWarning}
    return registry, [str(entry.message) for entry in caught]


def command_line(monkeypatch, folder):
    """What runs commands of xcam in this process, as if it had found the packages in the folder."""
    registry, _ = load(folder, own=("xcam.methods", "xcam.metrics"))
    for module in (xcam.registry, loading):
        monkeypatch.setattr(module, "installed", lambda: registry)
    return commands.run


def run(arguments, *folders, check=True):
    """A fresh process, of code or arguments, that finds the packages in the folders."""
    if isinstance(arguments, str):
        arguments = ["-c", arguments]
    path = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")]).rstrip(":")
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=check,
        timeout=240,
    )


@pytest.fixture(scope="module")
def installed_example(tmp_path_factory):
    """The example package, installed by pip into a folder of its own."""
    folder = tmp_path_factory.mktemp("example")
    leftovers = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    shutil.copytree(EXAMPLE, folder / "source", ignore=leftovers)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, *options, folder / "site", folder / "source"], check=True, timeout=120)
    return folder / "site"


def test_example_is_found_by_the_library(installed_example, monkeypatch, forgetful):
    monkeypatch.syspath_prepend(installed_example)
    registry, said = load(installed_example)
    assert (said, registry.failures) == ([], {})
    assert registry.owners["hidden_cells"] == "xcam-example:example"
    assert repr(registry.methods["hidden_cells"]()) == "HiddenCells(cells=7, output='logit')"
    assert repr(registry.methods["gate"]()) == "Gate(layer=None)"
    assert repr(registry.methods["elementwise_gradcam"]()).startswith("ElementwiseGradCAM(layer=")
    assert repr(registry.metrics["half_kept"]()) == "HalfKept(output='prob')"
    assert registry.owners["cell_correlation"] == "xcam-example:example"
    assert repr(registry.metrics["cell_correlation"]()).startswith("CellCorrelation(cells=4, ")


def test_example_is_found_by_the_command_line(installed_example, monkeypatch, forgetful):
    monkeypatch.syspath_prepend(installed_example)
    run = command_line(monkeypatch, installed_example)
    table = run("methods").stdout
    (row,) = (line for line in table.splitlines() if line.startswith("hidden_cells "))
    assert row.split()[:2] == ["hidden_cells", "Hidden"]
    assert row.endswith("xcam-example:example")
    assert any(line.startswith("gradcam ") for line in table.splitlines())
    table = run("metrics").stdout
    (row,) = (line for line in table.splitlines() if line.startswith("cell_correlation "))
    assert row.endswith("xcam-example:example")
    assert any(line.startswith("insertion ") for line in table.splitlines())


def test_example_passes_its_own_tests(installed_example):
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    arguments += ["-c", os.devnull, "--rootdir", EXAMPLE / "tests", EXAMPLE / "tests"]
    done = run(arguments, installed_example, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    plain, trainable = (len(method_checks(xcam.get_method(m)())) for m in ("random", "abn"))
    promises = 2 * plain + trainable + 2 * len(metric_checks(xcam.get_metric("entropy")()))
    assert f"{promises + 6} passed" in done.stdout


def test_good_package_is_found(site):
    publish(site, "good-package", method("grey"))
    registry, said = load(site)
    assert registry.owners["grey"] == "good-package:main"
    assert registry.methods["grey"].__name__ == "Grey"
    assert registry.plugins() == ["good-package:main", "xcam:methods"]
    assert (said, registry.failures) == ([], {})


BAD = {
    "import error": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_mod"),
    "syntax error": ("def", "SyntaxError: "),
    "exit at import": ("import sys; sys.exit('bye')", "SystemExit: bye"),
    "misspelt hook": (
        hook("return [Grey]", "xcam_method()"),
        "TypeError: there is no hook 'xcam_method'; did you mean 'xcam_methods'?",
    ),
    "hook with an argument": (
        hook("return [Grey]", "xcam_methods(config)"),
        "PluginValidationError: ",
    ),
    "no hook": (
        method("grey").replace("    @xcam.hookimpl\n", ""),
        "TypeError: bad_package implements no hook; decorate xcam_methods, xcam_metrics or "
        "xcam_models with @xcam.hookimpl",
    ),
    "hook that raises": (hook("raise OSError('no disk')"), "OSError: no disk"),
    "hook that exits": (hook("raise SystemExit(3)"), "SystemExit: 3"),
    "hook that returns nothing": (
        hook("pass"),
        "TypeError: xcam_methods must return a list of classes, got NoneType",
    ),
    "hook that returns a class": (
        hook("return Grey"),
        "TypeError: xcam_methods must return a list of classes, got ",
    ),
    "hook that returns an object": (
        hook("return [Grey()]"),
        "TypeError: xcam_methods returned Grey(), which is no Method subclass",
    ),
    "hook that returns another class": (
        hook("return [Grey, int]"),
        "TypeError: xcam_methods returned int, which is no Method subclass",
    ),
    "abstract class": (
        method("grey", rename=("def maps(", "def map(")),
        "TypeError: Grey does not implement maps",
    ),
    "no spec": (
        method("grey", rename=("spec: ClassVar", "specs: ClassVar")),
        "TypeError: Grey has no `spec`, which must be a MethodSpec",
    ),
    "no dataclass": (
        method("grey", drop=("@dataclass(frozen=True)", "")),
        "TypeError: Grey must be decorated with @dataclass(frozen=True)",
    ),
    "dataclass that is not frozen": (
        method("grey", thaw=("@dataclass(frozen=True)", "@dataclass")),
        "TypeError: Grey must be decorated with @dataclass(frozen=True)",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_package_is_left_out_by_name(site, kind):
    source, reason = BAD[kind]
    publish(site, "bad-package", source)
    publish(site, "worse-package", method("white"))  # sorted after the bad one
    registry, said = load(site)
    assert registry.failures.keys() == {"bad-package:main"}
    assert registry.failures["bad-package:main"].startswith(reason)
    assert "\n" not in registry.failures["bad-package:main"]
    assert said == [f"plugin bad-package:main is left out: {registry.failures['bad-package:main']}"]
    assert "grey" not in registry.methods
    assert registry.owners["white"] == "worse-package:main"
    assert registry.plugins() == ["worse-package:main", "xcam:methods"]
    assert "gradcam" in registry.methods


def test_interrupt_is_no_failure_of_the_plugin(site):
    publish(site, "bad-package", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load(site)


def test_package_installed_twice_is_loaded_once(site):
    publish(site, "twice", method("grey"))
    publish(site, "twice", method("grey"), suffix="_old")
    registry, said = load(site)
    assert said == ["plugin twice:main is installed twice; the first stays"]
    assert registry.owners["grey"] == "twice:main"
    assert registry.failures == {}


def test_name_brought_twice_stays_with_the_first(site):
    publish(site, "a-package", method("grey"))
    publish(site, "b-package", method("grey"))
    registry, said = load(site)
    assert said == [
        "'grey' is brought by both a-package:main and b-package:main; that of a-package:main stays"
    ]
    assert registry.methods["grey"].__module__ == "a_package"
    assert registry.owners["grey"] == "a-package:main"
    assert registry.failures == {}


def test_nobody_takes_a_name_from_xcam(site):
    publish(site, "aaa", method("gradcam"))
    registry, said = load(site)
    assert said == [
        "'gradcam' is brought by both xcam:methods and aaa:main; that of xcam:methods stays"
    ]
    assert registry.methods["gradcam"] is xcam.get_method("gradcam")


def test_metric_never_has_the_name_of_a_method(site):
    """So that `xcam check NAME` means one thing."""
    source = """
        from dataclasses import dataclass
        from typing import ClassVar

        import xcam

        @dataclass(frozen=True)
        class Shade(xcam.Metric):
            spec: ClassVar[xcam.MetricSpec] = xcam.MetricSpec(
                name="gradcam", title="", paper="", formula="", higher_is_better=True,
                bounds=(0.0, 1.0),
            )

            def score(self, model, images, explanation, truth=None):
                return images.flatten(1).mean(1)

            def finish(self, mean):
                return mean

        @xcam.hookimpl
        def xcam_metrics():
            return [Shade]
    """
    publish(site, "shade", source)
    registry, said = load(site)
    assert said == [
        "'gradcam' is brought by both xcam:methods and shade:main; that of xcam:methods stays"
    ]
    assert registry.metrics == {}
    assert registry.owners["gradcam"] == "xcam:methods"


def test_broken_contract_shows_in_the_table(site):
    lies = method("grey", lie=("0.5)", "0.5) * images.mean()"))
    publish(site, "bad-package", lies)
    registry, said = load(site)
    assert said == []
    broken = [r for r in check_method(registry.methods["grey"]()) if r.outcome == "broken"]
    assert "same_for_any_batch_size" in {result.check for result in broken}
    assert all(result.message.startswith("grey ") for result in broken)


def test_many_bad_packages_harm_nothing(tmp_path):
    """In a process of its own, as users meet them."""
    for index, (source, _) in enumerate(BAD.values()):
        publish(tmp_path, f"bad-{index:02}", source.replace("bad_package", f"bad_{index:02}"))
    publish(tmp_path, "good-package", method("white"))
    code = """
        import sys, warnings
        import xcam, xcam.registry
        print(any(name.startswith("bad_") for name in sys.modules))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            print({"gradcam", "white"} <= set(xcam.list_methods()))
        print(len(caught), len(xcam.registry.installed().failures))
        try:
            xcam.get_method("grey")
        except xcam.errors.UnknownNameError as error:
            print(error)
    """
    looked, found, counts, message = run(textwrap.dedent(code), tmp_path).stdout.splitlines()
    assert looked == "False"  # importing xcam looks for no plugin
    assert found == "True"
    assert counts == f"{len(BAD)} {len(BAD)}"
    assert message.startswith("no method 'grey': ")
    assert "bad-02:main failed: SystemExit: bye; bad-03:main failed: " in message


def test_failed_package_on_the_command_line(site, monkeypatch):
    publish(site, "bad-package", "import no_such_module")
    reason = "failed: ModuleNotFoundError: No module named 'no_such_module'"
    run = command_line(monkeypatch, site)
    assert reason in run("plugins").stdout
    done = run("check", "grey")
    assert done.exit_code == 2
    assert "no method 'grey'" in done.stderr
    assert f"bad-package:main {reason}" in done.stderr


NETS = """
    from torch import nn

    import xcam

    class Tiny(nn.Module):
        def __init__(self, num_classes=3, in_channels=3):
            super().__init__()
            self.fc = nn.Linear(in_channels, num_classes)

        def forward(self, images):
            return self.fc(images.mean((2, 3)))

    def trained(weights=None, scale=1.0):
        net = Tiny()
        nn.init.constant_(net.fc.weight, scale * len(weights or ""))
        return xcam.models.Normalized(net, [0.5], [0.25], categories=("a", "b", "c"), input_size=8)

    @xcam.hookimpl
    def xcam_models():
        return {"mine:tiny": Tiny, "mine:trained": trained}
"""


def net_hook(body):
    head = textwrap.dedent(NETS.split("@xcam.hookimpl")[0])
    return f"{head}\n@xcam.hookimpl\ndef xcam_models():\n    {body}\n"


@pytest.fixture
def nets(site, monkeypatch):
    """The registry of a package with two nets, as that of this process."""
    publish(site, "good-package", NETS)
    registry, said = load(site)
    assert (said, registry.failures) == ([], {})
    monkeypatch.setattr(loading, "installed", lambda: registry)
    return registry


def test_plugin_brings_nets(nets, tmp_path):
    assert sorted(nets.models) == ["mine:tiny", "mine:trained"]
    assert nets.owners["mine:tiny"] == "good-package:main"
    images = torch.rand(2, 1, 4, 4)
    net = xcam.models.load("mine:tiny", num_classes=5, in_channels=1)
    assert torch.equal(net(images), net.model(images))  # pixels as they are
    assert net(images).shape == (2, 5)
    assert not net.training
    net = xcam.models.load("mine:tiny", in_channels=1, mean=[0.5], std=[0.5])
    assert torch.equal(net(images), net.model((images - 0.5) / 0.5))
    xcam.save(net, tmp_path / "net.safetensors")
    assert torch.equal(xcam.load(tmp_path / "net.safetensors")(images), net(images))
    net = xcam.models.load("mine:trained", "LONG", scale=2.0)
    assert net.model.fc.weight.unique().tolist() == [8.0]
    assert (net.categories, net.input_size) == (("a", "b", "c"), (8, 8))
    assert xcam.models.load("mine:trained").model.fc.weight.unique().tolist() == [0.0]


def test_recipe_finds_a_net_of_a_plugin(nets, tmp_path):
    recipe = {
        "model": {"name": "mine:tiny", "num_classes": 10, "in_channels": 1},
        "data": {"name": "mnist"},
        "fit": {"epochs": 1, "batch_size": 30},
    }
    trained = xcam.recipes.fit(recipe, write_mnist(tmp_path))
    assert type(trained.model).__name__ == "Tiny"


@pytest.mark.parametrize(
    ("name", "arguments", "error", "words"),
    [
        ("mine:tinny", {}, UnknownNameError, "no model of mine is called 'tinny'; the nearest are"),
        ("mint:tiny", {}, UnknownNameError, "no provider of models is called 'mint'; .* mine"),
        ("tiny", {}, UnknownNameError, "the providers are mine, timm, torchvision, xcam"),
        ("mine:tiny", {"classes": 3}, TypeError, "mine:tiny has no argument 'classes'"),
        ("mine:tiny", {"weights": "DEFAULT"}, UnknownNameError, "mine:tiny has no weights to load"),
    ],
)
def test_net_of_a_plugin_is_refused_by_its_name(nets, name, arguments, error, words):
    with pytest.raises(error, match=words):
        xcam.models.load(name, **arguments)


BAD_NETS = {
    "a list": ("return [Tiny]", "xcam_models must return a dict of classes or functions"),
    "a bare name": (
        "return {'tiny': Tiny}",
        "xcam_models: the name of a net must be 'provider:name'",
    ),
    "a number": (
        "return {1: Tiny}",
        "xcam_models: the name of a net must be 'provider:name'",
    ),
    "xcam's name": (
        "return {'xcam:simple_cnn': Tiny}",
        "xcam_models: 'xcam:simple_cnn' has the provider xcam, which is taken; give one of",
    ),
    "a net": (
        "return {'mine:tiny': 3}",
        "xcam_models: 'mine:tiny' must be a class or a function",
    ),
}


@pytest.mark.parametrize("kind", BAD_NETS)
def test_package_with_bad_nets_is_left_out_by_name(site, kind):
    body, reason = BAD_NETS[kind]
    publish(site, "bad-package", net_hook(body))
    registry, said = load(site)
    assert registry.failures["bad-package:main"].startswith(f"TypeError: {reason}")
    assert said == [f"plugin bad-package:main is left out: {registry.failures['bad-package:main']}"]
    assert registry.models == {}


def test_net_brought_twice_stays_with_the_first(site):
    publish(site, "a-package", net_hook("return {'mine:tiny': Tiny}"))
    publish(site, "b-package", net_hook("return {'mine:tiny': trained}"))
    registry, said = load(site)
    assert said == [
        "'mine:tiny' is brought by both a-package:main and b-package:main; that of "
        "a-package:main stays"
    ]
    assert registry.models["mine:tiny"].__name__ == "Tiny"


def test_what_is_no_net_is_refused(site, monkeypatch):
    publish(site, "good-package", net_hook("return {'mine:nothing': lambda: None}"))
    registry, _ = load(site)
    monkeypatch.setattr(loading, "installed", lambda: registry)
    with pytest.raises(TypeError, match=r"^mine:nothing must be a torch.nn.Module, and is None"):
        xcam.models.load("mine:nothing")


def test_failed_package_is_named_where_its_net_is_asked_for(site, monkeypatch):
    publish(site, "bad-package", "import no_such_module")
    registry, _ = load(site)
    monkeypatch.setattr(loading, "installed", lambda: registry)
    with pytest.raises(UnknownNameError, match=r"\(bad-package:main failed: ModuleNotFoundError"):
        xcam.models.load("mine:tiny")
    assert xcam.models.load("xcam:gap_net")(torch.rand(1, 3, 8, 8)).shape == (1, 5)


def test_only_xcam_may_bring_nets_of_the_provider_xcam():
    own = importlib.metadata.EntryPoint("models", "xcam.models", "xcam")
    registry = Registry()
    with pytest.warns(PluginWarning, match="has the provider xcam, which is taken"):
        registry.load([own])  # which says nothing of a distribution
    assert not registry.models


def test_nets_are_listed_and_found_by_any_spelling(site, monkeypatch):
    publish(site, "good-package", net_hook("return {'Mine:Tiny_Net': Tiny}"))
    registry, _ = load(site)
    monkeypatch.setattr(loading, "installed", lambda: registry)
    names = xcam.models.list_models()
    assert {"xcam:simple_cnn", "xcam:ran", "xcam:warn", "xcam:gap_net", "Mine:Tiny_Net"} <= {*names}
    assert names == sorted(names)
    assert xcam.models.load("mine:tiny-net").source[0] == "Mine:Tiny_Net"
    assert xcam.models.load("XCAM:Gap-Net").source[0] == "xcam:gap_net"
    assert xcam.models.load("xcam:gapnet").source[0] == "xcam:gap_net"


def test_command_line_finds_a_net_of_a_plugin(installed_example, monkeypatch, forgetful, tmp_path):
    monkeypatch.syspath_prepend(installed_example)
    Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(tmp_path / "black.png")
    run = command_line(monkeypatch, installed_example)
    arguments = [tmp_path / "black.png", "--model", "example:tiny_cnn", "--weights", "none"]
    done = run("explain", *arguments, "--npy", tmp_path / "maps", "--out", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert list((tmp_path / "maps").glob("*.npy"))


ALIASED = ('cost="none",', 'cost="none", aliases=ALIASES,')


def aliased(name, *aliases):
    return method(name, aliases=(ALIASED[0], ALIASED[1].replace("ALIASES", repr(aliases))))


def test_plugin_brings_aliases(site):
    publish(site, "good-package", aliased("grey_map", "gray+"))
    registry, said = load(site)
    assert said == []
    for spelling in ("grey_map", "Grey-Map", "GREYMAP", "gray+", "Gray +"):
        assert registry.find_name(spelling) == "grey_map"
    assert registry.find_name("gray") == "gray"


def test_alias_brought_twice_stays_with_the_first(site):
    publish(site, "a-package", aliased("grey", "shade", "Grad-CAM"))
    publish(site, "b-package", aliased("white", "SHADE", "pale"))
    registry, said = load(site)
    assert said == [
        "'Grad-CAM' of a-package:main already stands for 'gradcam' of xcam:methods, which keeps "
        "it; use 'grey'",
        "'SHADE' of b-package:main already stands for 'grey' of a-package:main, which keeps it; "
        "use 'white'",
    ]
    assert registry.failures == {}
    assert registry.find_name("shade") == "grey"
    assert registry.find_name("white") == registry.find_name("Pale") == "white"
    assert registry.find_name("Grad-CAM") == "gradcam"


def test_registered_name_wins_over_an_alias(site):
    publish(site, "a-package", aliased("grey", "white"))
    publish(site, "b-package", method("white"))
    registry, said = load(site)
    assert len(said) == 1
    assert registry.find_name("white") == "white"
    assert registry.find_name("White") == "grey"


@pytest.mark.parametrize("aliases", ["'grey'", "['grey']", "(1,)"])
def test_aliases_that_are_no_tuple_of_strings_are_refused(site, aliases):
    publish(site, "bad-package", method("grey", a=(ALIASED[0], f"cost='none', aliases={aliases},")))
    registry, _ = load(site)
    assert registry.failures["bad-package:main"].startswith(
        "TypeError: Grey's aliases must be a tuple of strings, got "
    )


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("Grad-CAM", "gradcam"),
        ("GRAD_CAM", "gradcam"),
        ("gradcam++", "gradcam_plusplus"),
        ("Grad-CAM++", "gradcam_plusplus"),
        ("ig", "integrated_gradients"),
        ("smooth_grad", "smoothgrad"),
        ("L-CAM-Fm", "lcam_fm"),
    ],
)
def test_methods_are_found_by_other_spellings(spelling, name):
    assert xcam.get_method(spelling) is xcam.get_method(name)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("AD", "average_drop"), ("MaxBoxAcc", "max_box_acc"), ("road-morf", "road_morf")],
)
def test_metrics_are_found_by_other_spellings(spelling, name):
    assert xcam.get_metric(spelling) is xcam.get_metric(name)


def test_every_title_is_a_spelling_of_its_method():
    for name in xcam.list_methods():
        assert xcam.registry.find_name(xcam.get_method(name).spec.title) == name
