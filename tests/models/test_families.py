"""The default layer of real architectures gives maps of the right orientation, with gradients."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models

import xcam
from xcam.models import default_layer

pytest.importorskip("timm")
import timm
from families import TIMM, TORCHVISION, build, check_corners, make_corner_images, shows_corners

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "families.md"


@pytest.fixture(autouse=True)
def _flush_denormals():
    """Avoid subnormal features, on which a CPU is a hundred times slower, in untrained nets."""
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)


def thin(net):
    """Drop all but the first of equal blocks that follow each other, which keep the map's shape."""
    for module in [*net.modules()]:
        last = None
        children = [*module.named_children()] if type(module) is nn.Sequential else []
        for name, child in children:
            parts = [*child.modules()]
            shrinks = any(getattr(part, "stride", 1) not in (1, (1, 1)) for part in parts)
            shapes = [(name, tensor.shape) for name, tensor in child.state_dict().items()]
            signature = (str(child), shapes)
            if shapes and signature == last and not shrinks:
                del module._modules[name]
            last = signature
    return net


def read_page():
    """Return what the docs say of each family: (library, family) to (net, layer, result)."""
    row = r"\| (\w+) `(\w+)` \| `(\w+)` \| [\d×]+ \| `([\w.]+)` \| [^|]+ \| (\w+) \|"
    return {found[:2]: found[2:] for found in re.findall(row, PAGE.read_text(encoding="utf-8"))}


def strip_numbers(layer):
    return re.sub(r"\d+", "", layer)


def test_every_family_is_here():
    files = {models.get_model_builder(name).__module__ for name in models.list_models(models)}
    assert {name.rpartition(".")[2] for name in files} == {*TORCHVISION}
    assert {*timm.list_modules()} == {*TIMM}


def test_page_has_every_family():
    nets = {("torchvision", family): net for family, (net, *_) in TORCHVISION.items()}
    nets |= {("timm", family): net for family, (net, *_) in TIMM.items()}
    assert {family: net for family, (net, _, _) in read_page().items()} == nets


@pytest.mark.parametrize("family", TORCHVISION)
def test_torchvision_default_layer(family):
    name, size, options = TORCHVISION[family]
    check(build("torchvision", name, options), size, ("torchvision", family))


@pytest.mark.parametrize("family", TIMM)
def test_timm_default_layer(family):
    name, size, options = TIMM[family]
    check(build("timm", name, {"num_classes": 10, **options}), size, ("timm", family))


def check(net, size, family):
    layer, layout, passed = check_corners(thin(net), size)
    assert passed, (layer, layout)
    documented, result = read_page()[family][1:]
    assert strip_numbers(layer) == strip_numbers(documented)
    assert result == "passed" or family == ("timm", "visformer")  # which the page explains


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("swin_tiny_patch4_window7_224", {"depths": (1, 1, 1, 1)}),
        ("deit_tiny_distilled_patch16_224", {"depth": 2}),
        ("vit_small_patch16_dinov3", {"depth": 2, "embed_dim": 32, "num_heads": 2}),
        (
            "vit_small_patch14_reg4_dinov2",
            {"depth": 2, "embed_dim": 32, "num_heads": 2, "patch_size": 16},
        ),
        ("test_resnet", {}),
    ],
)
def test_corner_of_image_shows_in_corner_of_its_map(name, options):
    size = (64, 96)
    if "patch" in name:
        options = {"img_size": size, **options}
    net = build("timm", name, {"num_classes": 10, **options})
    images = make_corner_images(size)
    # The layer itself takes the difference, for in the mean over the channels of an untrained net
    # changes of either sign cancel.
    hook = net.get_submodule(default_layer(net, images)).register_forward_hook(
        lambda module, inputs, output: (output - output[:1]).abs()
    )
    with hook:
        maps = xcam.explain(net, images, method="conv_output", batch_size=len(images)).maps
    assert maps.shape == (5, *size)
    assert shows_corners(maps[1:])


@pytest.mark.parametrize(
    ("name", "options"),
    [("test_resnet", {}), ("test_efficientnet", {}), ("test_vit", {"img_size": (64, 96)})],
)
def test_net_without_classifier_has_the_layer_of_the_classifier(name, options):
    images = torch.rand(1, 3, 64, 96)
    layers = [
        default_layer(timm.create_model(name, num_classes=classes, **options).eval(), images)
        for classes in (10, 0)
    ]
    assert layers[0] == layers[1]
