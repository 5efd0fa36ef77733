"""Nets of ABN's published code: state dicts under its names, in the order of its modules."""

import re

import pytest
import torch
import torch.nn.functional as F
import torchvision

import xcam
from xcam.checkpoints import import_abn
from xcam.errors import FileFormatError
from xcam.methods import ABN
from xcam.models import Normalized

CONV = ["weight"]
NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
LINEAR = ["weight", "bias"]
BRANCH = [
    ("bn_att", NORM), ("att_conv", CONV), ("bn_att2", NORM), ("att_conv2", CONV),
    ("att_conv3", CONV), ("bn_att3", NORM),
]  # fmt: skip


def list_residuals(place, count, convolutions, shortcut):
    """List the modules of a stage of residual blocks, of which the first may have a projection."""
    found = []
    for block in range(count):
        for index in range(1, convolutions + 1):
            found += [(f"{place}.{block}.conv{index}", CONV), (f"{place}.{block}.bn{index}", NORM)]
        if shortcut and block == 0:
            found += [(f"{place}.0.downsample.0", CONV), (f"{place}.0.downsample.1", NORM)]
    return found


def make_cifar_resnet():
    model = xcam.models.load("xcam:cifar_resnet", depth=8, num_classes=4)
    blocks = [m for i in (1, 2) for m in list_residuals(f"layer{i}", 1, 2, shortcut=i > 1)]
    copied = list_residuals("att_layer3", 1, 2, shortcut=True)
    last = list_residuals("layer3", 1, 2, shortcut=True)
    first = [("conv1", CONV), ("bn1", NORM)]
    return model, [*first, *blocks, *copied, *BRANCH, *last, ("fc", LINEAR)]


def make_imagenet_resnet():
    model = Normalized(torchvision.models.resnet18(num_classes=4), (0.4,), (0.2,), input_size=64)
    blocks = [m for i in (1, 2, 3) for m in list_residuals(f"layer{i}", 2, 2, shortcut=i > 1)]
    copied = list_residuals("att_layer4", 2, 2, shortcut=True)
    last = list_residuals("layer4", 2, 2, shortcut=True)
    first = [("conv1", CONV), ("bn1", NORM)]
    return model, [*first, *blocks, *copied, *BRANCH, *last, ("fc", LINEAR)]


def make_wide_resnet():
    def stage(place, projects):
        found = []
        for block in (0, 1):
            for index in (1, 2):
                inside = f"{place}.layer.{block}"
                found += [(f"{inside}.bn{index}", NORM), (f"{inside}.conv{index}", CONV)]
            if block == 0 and projects:
                found.append((f"{inside}.convShortcut", CONV))
        return found

    model = xcam.models.load("xcam:cifar_wide_resnet", depth=16, widen=2, num_classes=4)
    blocks = [module for i in (1, 2, 3) for module in stage(f"block{i}", True)]
    copied = stage("att_block3", True)
    return model, [("conv1", CONV), *blocks, ("bn1", NORM), *copied, *BRANCH, ("fc", LINEAR)]


def make_cifar_resnext():
    def stage(name):
        block = f"{name}.{name}_bottleneck_0"
        pairs = (("reduce", "bn_reduce"), ("conv", "bn"), ("expand", "bn_expand"))
        found = [m for part, norm in pairs
                 for m in ((f"{block}.conv_{part}", CONV), (f"{block}.{norm}", NORM))]  # fmt: skip
        shortcut = f"{block}.shortcut.shortcut"
        return [*found, (f"{shortcut}_conv", CONV), (f"{shortcut}_bn", NORM)]

    model = xcam.models.load(
        "xcam:cifar_resnext", depth=11, cardinality=2, base_width=4, widen=2, num_classes=4
    )
    blocks = [module for i in (1, 2, 3) for module in stage(f"stage_{i}")]
    first = [("conv_1_3x3", CONV), ("bn_1", NORM)]
    return model, [*first, *blocks, ("classifier", LINEAR), *stage("stage_att"), *BRANCH]


def make_cifar_densenet():
    def stage(place):
        return [(f"{place}.{layer}.{part}{index}", NORM if part == "bn" else CONV)
                for layer in (0, 1) for index in (1, 2) for part in ("bn", "conv")]  # fmt: skip

    model = xcam.models.load("xcam:cifar_densenet", depth=16, growth=4, num_classes=4)
    blocks = []
    for index in (1, 2):
        transition = [(f"trans{index}.bn1", NORM), (f"trans{index}.conv1", CONV)]
        blocks += [*stage(f"dense{index}"), *transition]
    last, copied = stage("dense3"), stage("att_dense3")
    return model, [("conv1", CONV), *blocks, *last, *copied, *BRANCH, ("bn", NORM), ("fc", LINEAR)]


MODELS = (
    make_cifar_resnet, make_imagenet_resnet, make_wide_resnet, make_cifar_resnext,
    make_cifar_densenet,
)  # fmt: skip


def fill(shapes, seed=2):
    """Draw values of their own for tensors of these shapes, by name."""
    generator = torch.Generator().manual_seed(seed)
    filled = {}
    for name, shape in shapes.items():
        drawn = torch.rand(shape, generator=generator)
        if len(shape) > 1:
            drawn = (drawn - 0.5) * 3 / drawn[0].numel() ** 0.5
        counts = name.endswith("num_batches_tracked")
        filled[name] = torch.tensor(7) if counts else drawn + 0.5 * (len(shape) == 1)
    return filled


def find_shapes(model, modules):
    """Return the shapes of a file's tensors, by name: those of the classifier and of its branch."""
    net = ABN(branch_norm=True).attach(model)  # the published ResNeXt has the norm, uncalled
    classifier, head = net.model.classifier.state_dict(), net.model.head.state_dict()
    is_copied = re.compile(r"att_(layer|block|dense)\d|stage_att").match
    known = [name for name, _ in BRANCH]
    copied = [shape for name, shape in head.items() if name.startswith("stage.")]
    places = {
        "bn_att": "responses.0", "att_conv": "responses.1", "bn_att2": "responses.2",
        "att_conv2": "auxiliary", "att_conv3": "attention.0", "bn_att3": "attention.1",
    }  # fmt: skip
    sources = {True: iter(copied), False: iter(classifier.values())}
    shapes = {}
    for module, leaves in modules:
        for leaf in leaves:
            name = f"{module}.{leaf}"
            if module in known:
                shapes[name] = head[f"{places[module]}.{leaf}"].shape
            else:
                shapes[name] = next(sources[bool(is_copied(module))]).shape
    return shapes


def write(path, state, prefix="module."):
    torch.save(
        {"epoch": 300, "state_dict": {f"{prefix}{k}": v for k, v in state.items()}, "acc": 93.2},
        path,
    )
    return path


@pytest.fixture(params=MODELS)
def published(request):
    """A classifier, and the state of a trained net under the names of the published code."""
    model, modules = request.param()
    return model, fill(find_shapes(model, modules))


def test_all_tensors_of_the_file_are_in_the_net_once(published, tmp_path):
    model, state = published
    before = {name: value.clone() for name, value in model.state_dict().items()}
    net, report = import_abn(write(tmp_path / "a.pth.tar", state), model)
    own = net.model.state_dict()
    used = report[report["net"] != ""]
    assert sorted(report["file"]) == sorted(state)
    assert sorted(used["net"]) == sorted(own)
    for file, name, shape in used.itertuples(index=False):
        assert torch.equal(state[file].float(), own[name].float())
        assert shape == tuple(state[file].shape)
    unused = set(report[report["net"] == ""]["file"])
    assert unused == ({f"bn_att.{leaf}" for leaf in NORM} if "classifier.bias" in state else set())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert net.fitted
    assert not net.training


def convolve(state, name, x, **kwargs):
    return F.conv2d(x, state[f"{name}.weight"], **kwargs)


def normalize(state, name, x):
    mean, variance, weight, bias = (
        state[f"{name}.{leaf}"].view(-1, 1, 1)
        for leaf in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def apply_block(state, place, x, stride):
    y = normalize(state, f"{place}.bn1", convolve(state, f"{place}.conv1", x, stride=stride,
                                                  padding=1)).relu()  # fmt: skip
    y = normalize(state, f"{place}.bn2", convolve(state, f"{place}.conv2", y, padding=1))
    if f"{place}.downsample.0.weight" in state:
        x = convolve(state, f"{place}.downsample.0", x, stride=stride)
        x = normalize(state, f"{place}.downsample.1", x)
    return (x + y).relu()


def apply_branch(state, features):
    """Return A and the auxiliary logits of what the copied stage gives."""
    responses = normalize(state, "bn_att2", convolve(state, "att_conv", features)).relu()
    attention = convolve(state, "att_conv3", responses, padding=1)
    attention = normalize(state, "bn_att3", attention).sigmoid()
    return attention, convolve(state, "att_conv2", responses).mean((2, 3))


def test_imported_resnet_computes_what_the_paper_says(tmp_path):
    model, modules = make_cifar_resnet()
    state = fill(find_shapes(model, modules))
    net, _ = import_abn(write(tmp_path / "a.pth.tar", state), model)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    x = normalize(state, "bn1", convolve(state, "conv1", model.normalize(images), padding=1)).relu()
    x = apply_block(state, "layer2.0", apply_block(state, "layer1.0", x, 1), 2)
    copied = normalize(state, "bn_att", apply_block(state, "att_layer3.0", x, 1))
    attention, auxiliary = apply_branch(state, copied)
    last = apply_block(state, "layer3.0", x * attention + x, 2).mean((2, 3))
    logits = F.linear(last, state["fc.weight"], state["fc.bias"])

    torch.testing.assert_close(net(images), logits, rtol=1e-4, atol=1e-4)
    maps = xcam.explain(net, images, method=None).raw
    torch.testing.assert_close(maps, attention[:, 0], rtol=1e-4, atol=1e-5)
    labels = torch.tensor([1, 3])
    loss = net.method.loss(net, images, labels)[0]
    by_hand = F.cross_entropy(logits, labels) + F.cross_entropy(auxiliary, labels)
    torch.testing.assert_close(loss, by_hand, rtol=1e-4, atol=1e-4)


def test_norm_that_the_published_resnext_never_calls_changes_nothing(tmp_path):
    model, modules = make_cifar_resnext()
    state = fill(find_shapes(model, modules))
    net, _ = import_abn(write(tmp_path / "a.pth.tar", state), model)
    state["bn_att.weight"] = state["bn_att.weight"] * 3
    other, _ = import_abn(write(tmp_path / "b.pth.tar", state), model)
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(other(images), net(images))
    assert not net.method.branch_norm
    called, _ = import_abn(tmp_path / "b.pth.tar", model, branch_norm=True)
    assert not torch.allclose(called(images), net(images))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer2.0.conv1.weight": None}, r"lack 'classifier.stage2.0.branch.0.weight' \(1 such\)"),
        ({"att_layer3.0.bn2.bias": None}, r"lack 'head.stage.0.branch.4.bias' \(1 such\)"),
        ({"att_layer3.0.se.weight": torch.zeros(3)}, "beyond the model, 'att_layer3.0.se.weight'"),
        ({"att_conv3.weight": torch.zeros(1, 4, 1, 1)}, r"'head.attention.0.weight' .*\(1, 4, 1,"),
        ({"fc.bias": torch.full((4,), torch.nan)}, "4 of the 4 values of 'fc.bias' .* are NaN"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, changes, message):
    model, modules = make_cifar_resnet()
    state = fill(find_shapes(model, modules)) | changes
    path = write(tmp_path / "a.pth.tar", {k: v for k, v in state.items() if v is not None})
    with pytest.raises(FileFormatError, match=message):
        import_abn(path, model)
    with pytest.raises(FileNotFoundError):
        import_abn(tmp_path / "none.pth.tar", model)
