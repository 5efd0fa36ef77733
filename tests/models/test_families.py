"""The default layer of real architectures gives maps of the right orientation, with gradients."""

import pytest
import torch
from torch import nn
from torchvision import models

import xcam
from xcam.engine import capture
from xcam.models import default_layer, read_map

# One small member of each file of torchvision's classifiers, with a size and its layer.
TORCHVISION = {
    "alexnet": ((128, 96), "features.11"),
    "convnext_tiny": ((128, 96), "features"),
    "densenet121": ((96, 128), "features"),
    "efficientnet_b0": ((128, 96), "features"),
    "googlenet": ((128, 96), "inception5b"),
    "inception_v3": ((192, 256), "Mixed_7c"),
    "maxvit_t": ((224, 224), "blocks.3"),
    "mnasnet0_5": ((96, 128), "layers"),
    "mobilenet_v2": ((128, 96), "features"),
    "mobilenet_v3_small": ((96, 128), "features"),
    "regnet_x_400mf": ((128, 96), "trunk_output"),
    "resnet18": ((128, 96), "layer4"),
    "resnet50": ((96, 128), "layer4"),
    "shufflenet_v2_x0_5": ((128, 96), "conv5"),
    "squeezenet1_1": ((128, 96), "features"),
    "swin_t": ((128, 96), "permute"),
    "swin_v2_t": ((96, 128), "permute"),
    "vgg11": ((128, 96), "features.19"),
    "vit_b_32": ((128, 128), "encoder.layers.encoder_layer_11.ln_1"),
}
# Of timm: class token, registers, distillation, rotary positions with average pooling, no prefix
# tokens, channels last.
TIMM = {
    "convnext_atto": ((128, 96), "stages", {}),
    "deit_tiny_distilled_patch16_224": ((96, 64), "blocks.2.norm1", {"depth": 3}),
    "densenet121": ((96, 128), "features", {}),
    "efficientnet_b0": ((128, 96), "bn2", {}),
    "eva02_tiny_patch14_224": ((84, 112), "blocks.2", {"depth": 3}),
    "mixer_s32_224": ((224, 224), "norm", {}),
    "resnet18": ((128, 96), "layer4", {}),
    "swin_tiny_patch4_window7_224": ((224, 168), "norm", {"depths": (1, 1, 1, 1)}),
    "vit_small_patch14_reg4_dinov2": ((84, 112), "blocks.2.norm1", {"depth": 3}),
    "vit_tiny_patch16_224": ((96, 64), "blocks.2.norm1", {"depth": 3}),
}


@pytest.fixture(autouse=True)
def _flush_denormals():
    """Avoid subnormal features, on which a CPU is a hundred times slower, in untrained nets."""
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)


def source_file(name):
    return models.get_model_builder(name).__module__


def test_every_torchvision_family_is_here():
    families = {source_file(name) for name in models.list_models(module=models)}
    assert {source_file(name) for name in TORCHVISION} == families


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_default_layer(name):
    size, layer = TORCHVISION[name]
    options = {}
    if name.startswith("vit"):
        options["image_size"] = size[0]
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False  # the other way draws for seconds
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.get_model(name, weights=None, **options).eval()
        revive(model)
    check_layer(model, size, layer)


@pytest.mark.parametrize("name", TIMM)
def test_timm_default_layer(name):
    timm = pytest.importorskip("timm")
    size, layer, options = TIMM[name]
    if "patch" in name:
        options = {**options, "img_size": size}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(name, **options).eval()
        revive(model)
    check_layer(model, size, layer)


def revive(model):
    """Draw the weights that start at zero.

    Behind a zero head every gradient is zero, and residual branches that end in a zero norm leave
    only the shortcuts, which skip most pixels.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.BatchNorm2d) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.02)


def check_layer(model, size, expected):
    generator = torch.Generator().manual_seed(1)
    images = corner_images(torch.rand(1, 3, *size, generator=generator), generator)
    layer = default_layer(model, images)
    assert layer == expected
    with capture(model, layer) as tap:
        scores = tap(images).amax(1)
        activation = read_map(tap.activation.detach(), images, model)
        gradient = read_map(tap.gradient(scores), images, model)
    assert activation.ndim == 4
    assert activation.shape == gradient.shape
    assert activation[0, 0].numel() > 1
    assert gradient.flatten(1).any(1).all()
    maps = changes(model, images, layer)
    assert maps.shape == (5, *size)
    for corner in range(4):
        change = (activation[corner + 1] - activation[0]).abs().sum(0)
        assert quadrant_means(change).argmax() == corner
        assert quadrant_means(maps[corner + 1]).argmax() == corner


def changes(model, images, layer):
    """Return maps of how far each image's features are from those of the first.

    The layer itself takes the difference, for in the mean over the channels of an untrained net
    changes of either sign cancel.
    """
    hook = model.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: (output - output[:1]).abs()
    )
    with hook:
        return xcam.explain(model, images, method="conv_output", batch_size=len(images)).maps


def corner_images(image, generator):
    """Return the image, and four copies with noise in one corner, a quarter of each side."""
    height, width = image.shape[2] // 4, image.shape[3] // 4
    images = image.repeat(5, 1, 1, 1)
    for corner in range(4):
        rows = slice(0, height) if corner < 2 else slice(-height, None)
        columns = slice(0, width) if corner % 2 == 0 else slice(-width, None)
        noise = 3 * torch.randn(image.shape[1], height, width, generator=generator)
        images[corner + 1, :, rows, columns] = noise
    return images


def quadrant_means(change):
    height, width = -(-change.shape[0] // 2), -(-change.shape[1] // 2)
    upper, lower = change[:height], change[-height:]
    quadrants = upper[:, :width], upper[:, -width:], lower[:, :width], lower[:, -width:]
    return torch.stack([quadrant.mean() for quadrant in quadrants])
