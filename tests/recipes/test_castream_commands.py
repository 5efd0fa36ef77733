"""CA-Stream's commands on the page of originals: recipes read, evaluations run on small data."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from commands import run
from data_files import write_picture
from original_commands import read_commands
from torch.utils.data import TensorDataset

import xcam
from xcam import recipes
from xcam.cli import evaluating, fitting
from xcam.results import tables

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


def rescale(maps):
    """Each map (…, h, w) to [0, 1], as section 3.4 of the published evaluation does."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low + torch.finfo(maps.dtype).eps)


def enlarge(maps):
    return F.interpolate(maps, (32, 32), mode="bilinear", align_corners=False)


def compute_maps(net, layer, images, labels):
    """Grad-CAM, Grad-CAM++ and Score-CAM, (B, 1, h, w) each, cut by ReLU and rescaled."""
    images, met = images.clone().requires_grad_(), []  # the classifier is frozen
    handle = net.get_submodule(layer).register_forward_hook(lambda *given: met.append(given[2]))
    logits = net(images)
    handle.remove()
    (features,) = met
    chosen = logits.gather(1, labels[:, None]).sum()
    (slopes,) = torch.autograd.grad(chosen, features)
    weights = {"gradcam": slopes.mean((2, 3))}
    below = 2 * slopes**2 + features.sum((2, 3), keepdim=True) * slopes**3
    shares = torch.where(slopes == 0, 0, slopes**2 / torch.where(slopes == 0, 1, below))
    weights["gradcam_plusplus"] = (shares * slopes.relu()).sum((2, 3))
    masks = rescale(enlarge(features.detach()))
    scores = [net(images * masks[:, k : k + 1]).softmax(1) for k in range(masks.shape[1])]
    weights["scorecam"] = torch.stack([p.gather(1, labels[:, None])[:, 0] for p in scores], 1)
    sums = {name: (w[:, :, None, None] * features).sum(1, True) for name, w in weights.items()}
    return {name: rescale(maps.relu()).detach() for name, maps in sums.items()}


def test_masked_scores_are_those_of_the_published_evaluation(trained):
    """AD, AG and AI of the maps that the command names, by the formulas of the published code."""
    net = xcam.load(trained / "RUN" / "last.safetensors").eval()
    images, labels = torch.rand(6, 3, 32, 32), torch.tensor([0, 1, 2, 0, 1, 2])
    (named,) = take(EVALUATIONS[0], "--methods")
    metrics = {name: tables.castream().metrics[name] for name in ("AD", "AG", "AI")}
    data = TensorDataset(images, labels)
    given = evaluating.parse_methods(named), metrics, "label"
    results = xcam.evaluate(net, data, *given, controls=False)
    assert results.to_pandas()["error"].isna().all()
    found = results.table().set_index(["metric", "method"])["value"]
    layer = xcam.explain(net, images, 0, "gradcam").method.layer
    maps = compute_maps(
        net, next(n for n, _ in net.named_modules() if n.endswith(layer)), images, labels
    )
    before = net(images).softmax(1).gather(1, labels[:, None])[:, 0]
    assert {method for _, method in found.index} == {*maps}
    for name, each in maps.items():
        after = net(images * enlarge(each)).softmax(1).gather(1, labels[:, None])[:, 0]
        wanted = {
            "AD": (before - after).relu() / before,
            "AG": (after - before).relu() / (1 - before),
            "AI": (after > before).float(),
        }
        for metric, values in wanted.items():
            mean = 100 * float(values.detach().mean())
            assert found[metric, name] == pytest.approx(mean, abs=1e-3), (name, metric)
