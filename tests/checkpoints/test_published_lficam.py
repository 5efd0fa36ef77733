"""Nets of LFI-CAM's published code: state dicts under its names, in the order of its modules."""

import copy
import math
import re
from pathlib import Path

import pytest
import torch
import torchvision

import xcam
from xcam.checkpoints import import_lficam
from xcam.errors import FileFormatError
from xcam.methods import LFICAM
from xcam.models import Normalized

PAGE = Path(__file__).parents[2] / "docs" / "coming_from" / "originals.md"
CONV = ["weight"]
NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
LINEAR = ["weight", "bias"]


def keys(*modules):
    return [f"{name}.{leaf}" for name, leaves in modules for leaf in leaves]


def residual(place, count, shortcut, conv="conv{}", norm="bn{}"):
    """The names of a residual block's tensors."""
    found = []
    for index in range(1, count + 1):
        found += [(f"{place}.{conv.format(index)}", CONV), (f"{place}.{norm.format(index)}", NORM)]
    if shortcut:
        found += [(f"{place}.downsample.0", CONV), (f"{place}.downsample.1", NORM)]
    return found


def listed():
    """FIN in the nets for CIFAR: a sequence with ReLUs at 4 and 9."""
    return [(f"attention.{index}", NORM if index in (1, 3, 6, 8) else CONV)
            for index in (0, 1, 2, 3, 5, 6, 7, 8)]  # fmt: skip


def named():
    """FIN in the nets for ImageNet."""
    pairs = [((f"att_conv{i}", CONV), (f"att_bn{i}", NORM)) for i in range(1, 5)]
    return [module for pair in pairs for module in pair]


def cifar_resnet():
    """Two bottlenecks a stage, of three convolutions each."""
    blocks = []
    for layer in (1, 2, 3):
        for index in (0, 1):
            blocks += residual(f"layer{layer}.{index}", 3, shortcut=index == 0)
    backbone = [("conv1", CONV), ("bn1", NORM), *blocks, ("fc.0", LINEAR)]
    model = xcam.models.load("xcam:cifar_resnet", depth=14, block="bottleneck", num_classes=4)
    return model, keys(*backbone), keys(*listed())


def small_cifar_resnet():
    """One block of two convolutions a stage; the first has no projection."""
    blocks = []
    for layer in (1, 2, 3):
        blocks += residual(f"layer{layer}.0", 2, shortcut=layer > 1)
    backbone = [("conv1", CONV), ("bn1", NORM), *blocks, ("fc", LINEAR)]
    model = xcam.models.load("xcam:cifar_resnet", depth=8, num_classes=4)
    return model, keys(*backbone), keys(*listed())


def cifar_resnext():
    blocks = []
    for stage in (1, 2, 3):
        block = f"stage_{stage}.stage_{stage}_bottleneck_0"
        for part, norm in (("reduce", "bn_reduce"), ("conv", "bn"), ("expand", "bn_expand")):
            blocks += [(f"{block}.conv_{part}", CONV), (f"{block}.{norm}", NORM)]
        blocks += [
            (f"{block}.shortcut.shortcut_conv", CONV), (f"{block}.shortcut.shortcut_bn", NORM)
        ]  # fmt: skip
    backbone = [("conv_1_3x3", CONV), ("bn_1", NORM), *blocks, ("classifier", LINEAR)]
    model = xcam.models.load(
        "xcam:cifar_resnext", depth=11, cardinality=2, base_width=4, widen=2, num_classes=4
    )
    return model, keys(*backbone), keys(*listed())


def cifar_densenet():
    blocks = []
    for stage in (1, 2, 3):
        for index in (0, 1):
            blocks += residual(f"dense{stage}.{index}", 2, shortcut=False)
            blocks[-4:] = [blocks[i] for i in (-3, -4, -1, -2)]  # norms come first
        if stage < 3:
            blocks += [(f"trans{stage}.bn1", NORM), (f"trans{stage}.conv1", CONV)]
    backbone = [("conv1", CONV), *blocks, ("bn", NORM), ("fc", LINEAR)]
    model = xcam.models.load("xcam:cifar_densenet", depth=16, growth=4, num_classes=4)
    return model, keys(*backbone), keys(*listed())


def imagenet_resnet():
    """ResNet-18 of two blocks a stage."""
    blocks = []
    for layer in (1, 2, 3, 4):
        for index in (0, 1):
            blocks += residual(f"layer{layer}.{index}", 2, shortcut=layer > 1 and index == 0)
    backbone = [("conv1", CONV), ("bn1", NORM), *blocks, ("fc", LINEAR)]
    net = torchvision.models.resnet18(num_classes=4)
    return Normalized(net, (0.4,), (0.2,), input_size=64), keys(*backbone), keys(*named())


ALTERNATE = LFICAM(fin_relu="alternate")
NETS = (cifar_resnet, small_cifar_resnet, cifar_resnext, cifar_densenet, imagenet_resnet)


@pytest.fixture(params=NETS)
def trained(request):
    """A net with a head and values of its own in every tensor, and its state under their names."""
    model, backbone, fin = request.param()
    imagenet = request.param is imagenet_resnet
    settings = {"stem_stride": 1} if imagenet else {}
    layout = "every" if imagenet else "alternate"  # the importer's choice, if none is given
    net = LFICAM(fin_relu=layout, **settings).attach(model).eval()
    generator = torch.Generator().manual_seed(2)
    for name, tensor in net.state_dict().items():
        drawn = torch.rand(tensor.shape, generator=generator)
        large = tensor[0].numel() ** 0.5 if tensor.dim() > 1 else 1  # or values would explode
        counter = name.endswith("num_batches_tracked")
        tensor.copy_(7 if counter else (drawn - 0.5) * 3 / large if large > 1 else drawn + 0.5)
    state = list(net.state_dict().items())
    mine = {name for name, _ in state if name.startswith("model.head.")}
    values = [value for name, value in state if name not in mine]
    own = [value for name, value in state if name in mine]
    assert (len(values), len(own)) == (len(backbone), len(fin))
    head = backbone[-2:]  # the linear layer comes behind FIN in the file
    theirs = dict(zip(backbone, values, strict=True)) | dict(zip(fin, own, strict=True))
    ordered = {name: theirs[name] for name in [*backbone[:-2], *fin, *head]}
    return model, net, ordered, settings


def write(path, state, prefix="module."):
    torch.save(
        {"epoch": 300, "state_dict": {f"{prefix}{k}": v for k, v in state.items()},
         "acc": 93.2, "best_acc": 93.4, "best_epoch": 280, "optimizer": {"state": {}}},
        path,
    )  # fmt: skip
    return path


def test_imported_net_has_the_files_weights(trained, tmp_path):
    model, net, state, settings = trained
    before = copy.deepcopy(model.state_dict())
    found, report = import_lficam(write(tmp_path / "a.pth.tar", state), model, **settings)
    expected = net.state_dict()
    assert found.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert sorted(report["file"]) == sorted(state)
    for file, own, shape in report.itertuples(index=False):
        assert torch.equal(state[file], expected[f"model.{own}"])
        assert shape == tuple(state[file].shape)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    maps = xcam.explain(found, images, method=None).raw
    net.fitted = True
    assert torch.equal(maps, xcam.explain(net, images, method=None).raw)


def test_files_without_batch_counts_are_read(tmp_path):
    model, backbone, fin = small_cifar_resnet()
    net = ALTERNATE.attach(model)
    state = dict(zip([*backbone, *fin], net.state_dict().values(), strict=True))
    old = {name: value for name, value in state.items() if not name.endswith("tracked")}
    found, report = import_lficam(write(tmp_path / "a.pth.tar", old, ""), model)
    lacking = report[report["file"] == ""]["net"]
    assert len(lacking) == len(state) - len(old) > 0
    assert all(name.endswith(".num_batches_tracked") for name in lacking)
    assert all(found.model.get_buffer(name) == 0 for name in lacking)
    assert set(report["file"]) - {""} == set(old)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer2.0.conv1.weight": None}, r"lack 'classifier.stage2.0.branch.0.weight' \(1 such\)"),
        ({"layer2.0.bn1.running_var": None}, "lack 'classifier.stage2.0.branch.1.running_var'"),
        ({"attention.7.weight": None}, "lack 'head.fin.7.weight'"),
        ({"block1.0.conv1.weight": torch.zeros(1)}, "have, beyond .* 'block1.0.conv1.weight'"),
        ({"fc.0.weight": torch.zeros(4, 64)}, r"have, beyond the model, 'fc.0.weight' \(1 such\)"),
        ({"attention.4.weight": torch.zeros(3)}, "have, beyond the model, 'attention.4.weight'"),
        ({"fc.weight": torch.zeros(10, 64)}, r"in 'classifier.fc.weight' .*\(10, 64\) instead of"),
        (
            {"attention.5.weight": torch.zeros(64, 21, 3, 3)},
            r"another shape in 'head.fin.5.weight' .*\(64, 21, 3, 3\) instead of \(64, 64",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, changes, message):
    model, backbone, fin = small_cifar_resnet()
    net = ALTERNATE.attach(model)
    state = dict(zip([*backbone, *fin], net.state_dict().values(), strict=True)) | changes
    path = write(tmp_path / "a.pth.tar", {k: v for k, v in state.items() if v is not None})
    with pytest.raises(FileFormatError, match=f"are no LFI-CAM of this CifarResNet: .*{message}"):
        import_lficam(path, model)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["layer2.0.conv1.weight", "attention.1.running_var", "fc.bias"])
def test_nan_and_infinite_weights_are_refused(tmp_path, name, value):
    """Whichever they are: of the backbone, of FIN, a statistic."""
    model, backbone, fin = small_cifar_resnet()
    state = dict(zip([*backbone, *fin], ALTERNATE.attach(model).state_dict().values(), strict=True))
    state[name].flatten()[2] = value
    path = write(tmp_path / "a.pth.tar", state)
    sentence = f"1 of the {state[name].numel()} values of '{name}' in .* are NaN or infinite in"
    with pytest.raises(FileFormatError, match=sentence):
        import_lficam(path, model)


@pytest.mark.parametrize(("stride", "relu"), [(1, "every"), (2, "alternate")])
def test_stem_stride_chooses_the_layout_of_fin(tmp_path, stride, relu):
    """Their weights are alike: the older ones have another stride, and half FIN's ReLUs."""
    model, backbone, fin = imagenet_resnet()
    net = LFICAM(stem_stride=stride, fin_relu=relu).attach(model).eval()
    state = dict(zip([*backbone, *fin], net.state_dict().values(), strict=True))
    path = write(tmp_path / "a.pth.tar", state)
    found, _ = import_lficam(path, model, stem_stride=stride)
    assert found.method == LFICAM(layer="layer4", fin_relu=relu, stem_stride=stride)
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found(images), net(images))
    with pytest.raises(ValueError, match="does not say the stride of its stem: give stem_stride=1"):
        import_lficam(path, model)


def test_given_layout_of_fin_is_used(tmp_path):
    model, backbone, fin = imagenet_resnet()
    net = LFICAM().attach(model)
    state = dict(zip([*backbone, *fin], net.state_dict().values(), strict=True))
    path = write(tmp_path / "a.pth.tar", state)
    found, _ = import_lficam(path, model, stem_stride=2, fin_relu="every")
    assert found.method == LFICAM(layer="layer4", fin_relu="every", stem_stride=2)


def test_parameters_are_checked(tmp_path):
    model, backbone, fin = small_cifar_resnet()
    state = dict(zip([*backbone, *fin], ALTERNATE.attach(model).state_dict().values(), strict=True))
    path = write(tmp_path / "a.pth.tar", state)
    with pytest.raises(TypeError, match="lficam has no parameter 'stem': did you mean stem_stride"):
        import_lficam(path, model, stem=1)


def test_missing_and_damaged_files_are_refused(tmp_path):
    model = small_cifar_resnet()[0]
    with pytest.raises(FileNotFoundError, match=r"no file of weights at .*a\.pth\.tar"):
        import_lficam(tmp_path / "a.pth.tar", model)
    (tmp_path / "a.pth.tar").write_text("hello")
    with pytest.raises(FileFormatError, match="is damaged or is no file of weights"):
        import_lficam(tmp_path / "a.pth.tar", model)


def test_example_on_the_documentation_page_runs(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if "import_lficam" in block]
    model, backbone, fin = cifar_resnet()  # a smaller one
    state = ALTERNATE.attach(model).state_dict().values()
    monkeypatch.chdir(tmp_path)
    write(Path("model_best.pth.tar"), dict(zip([*backbone, *fin], state, strict=True)))
    monkeypatch.setattr(xcam.models, "load", lambda *_, **__: model)
    names = {}
    exec(code, names)
    again = xcam.load("lficam.safetensors", model=model)
    assert again.method == names["net"].method
    assert again.fitted
