"""The default layer in each family of torchvision's and timm's classifiers: a table of the docs.

`python docs/families.py docs/reference/families.md` builds a net of each family, untrained and of
its usual size, and writes the table behind the page's marker (some minutes). The tests run the same
check on small variants.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from xcam.engine import capture
from xcam.engine.layout import Layout, require_layout
from xcam.models import default_layer

Options = dict[str, Any]

MARKER = "<!-- made by `python docs/families.py docs/reference/families.md` -->"

# Of each file of torchvision's classifiers: a net, and the size of images in the tests.
TORCHVISION: dict[str, tuple[str, tuple[int, int], Options]] = {
    "alexnet": ("alexnet", (128, 96), {}),
    "convnext": ("convnext_tiny", (128, 96), {}),
    "densenet": ("densenet121", (96, 128), {}),
    "efficientnet": ("efficientnet_b0", (128, 96), {}),
    "googlenet": ("googlenet", (128, 96), {"init_weights": False}),
    "inception": ("inception_v3", (192, 256), {"init_weights": False}),
    "maxvit": ("maxvit_t", (224, 224), {}),
    "mnasnet": ("mnasnet0_5", (96, 128), {}),
    "mobilenetv2": ("mobilenet_v2", (128, 96), {}),
    "mobilenetv3": ("mobilenet_v3_small", (96, 128), {}),
    "regnet": ("regnet_x_400mf", (128, 96), {}),
    "resnet": ("resnet18", (128, 96), {}),
    "shufflenetv2": ("shufflenet_v2_x0_5", (128, 96), {}),
    "squeezenet": ("squeezenet1_1", (128, 96), {}),
    "swin_transformer": ("swin_t", (128, 96), {}),
    "vgg": ("vgg11", (128, 96), {}),
    "vision_transformer": ("vit_b_32", (128, 128), {"image_size": 128}),
}

# Of each file of timm's: a net; for the tests the size of images, and options that make it small.
TIMM: dict[str, tuple[str, tuple[int, int], Options]] = {
    "beit": (
        "beit_base_patch16_224",
        (64, 96),
        {"img_size": (64, 96), "depth": 2, "embed_dim": 48, "num_heads": 2},
    ),
    "byoanet": ("lambda_resnet26rpt_256", (64, 64), {"img_size": 64}),
    "byobnet": ("test_byobnet", (64, 96), {}),
    "cait": (
        "cait_xxs24_224",
        (64, 96),
        {"img_size": (64, 96), "depth": 2, "embed_dim": 48, "num_heads": 2},
    ),
    "coat": ("coat_lite_tiny", (64, 96), {"img_size": (64, 96)}),
    "convit": ("convit_tiny", (64, 64), {"img_size": 64, "depth": 3, "local_up_to_layer": 2}),
    "convmixer": ("convmixer_768_32", (56, 84), {}),
    "convnext": ("test_convnext", (64, 96), {}),
    "cpubone": ("cpubone_nano", (96, 128), {}),
    "crossvit": (
        "crossvit_9_240",
        (120, 120),
        {
            "img_size": 120,
            "embed_dim": (32, 64),
            "num_heads": (2, 2),
            "depth": ((1, 1, 0), (1, 1, 0)),
        },
    ),
    "csatv2": ("csatv2", (128, 192), {}),
    "cspnet": ("cspresnet50", (64, 96), {}),
    "cspnext": ("cspnext_tiny", (64, 96), {}),
    "davit": (
        "davit_tiny",
        (64, 96),
        {"depths": (1, 1, 1, 1), "embed_dims": (16, 32, 48, 64), "num_heads": (1, 2, 3, 4)},
    ),
    "deepseek_vit": (
        "deepseek_vit_412m",
        (56, 84),
        {"img_size": (56, 84), "depth": 2, "embed_dim": 64, "num_heads": 2},
    ),
    "deit": ("deit_tiny_distilled_patch16_224", (64, 96), {"img_size": (64, 96), "depth": 2}),
    "densenet": ("densenet121", (64, 96), {"block_config": (2, 2, 2, 2)}),
    "dla": ("dla46_c", (64, 96), {}),
    "dpn": ("dpn48b", (64, 96), {}),
    "edgenext": ("edgenext_xx_small", (64, 96), {"depths": (1, 1, 2, 1)}),
    "efficientformer": (
        "efficientformer_l1",
        (224, 224),
        {"depths": (1, 1, 1, 2), "embed_dims": (16, 32, 48, 64)},
    ),
    "efficientformer_v2": ("efficientformerv2_s0", (128, 128), {"img_size": 128}),
    "efficientnet": ("test_efficientnet", (64, 96), {}),
    "efficientvim": ("efficientvim_m1", (128, 192), {}),
    "efficientvit_mit": ("efficientvit_b0", (64, 96), {}),
    "efficientvit_msra": ("efficientvit_m0", (128, 128), {"img_size": 128}),
    "eva": ("eva02_tiny_patch14_224", (56, 84), {"img_size": (56, 84), "depth": 2}),
    "fasternet": ("fasternet_t0", (64, 96), {}),
    "fastvit": ("fastvit_t8", (64, 96), {}),
    "focalnet": ("focalnet_tiny_srf", (64, 96), {}),
    "gcvit": ("gcvit_xxtiny", (64, 64), {"img_size": 64}),
    "gemma4_vit": (
        "gemma4_vit_167m",
        (64, 96),
        {"img_size": (64, 96), "depth": 2, "embed_dim": 64, "num_heads": 2},
    ),
    "ghostnet": ("ghostnet_050", (64, 96), {}),
    "hardcorenas": ("hardcorenas_a", (96, 128), {}),
    "hgnet": ("hgnetv2_b0", (64, 96), {}),
    "hiera": (
        "hiera_tiny_224",
        (64, 64),
        {"img_size": 64, "embed_dim": 16, "stages": (1, 1, 1, 1)},
    ),
    "hieradet_sam2": ("sam2_hiera_tiny", (64, 96), {"embed_dim": 16}),
    "hrnet": ("hrnet_w18_small", (64, 96), {}),
    "iformer": ("iformer_t", (64, 96), {}),
    "inception_next": ("inception_next_atto", (64, 96), {}),
    "inception_resnet_v2": ("inception_resnet_v2", (128, 192), {}),
    "inception_v3": ("inception_v3", (128, 192), {}),
    "inception_v4": ("inception_v4", (128, 192), {}),
    "lcnetv2": ("lcnetv2_small", (64, 96), {}),
    "levit": ("levit_128s", (224, 224), {}),
    "lowformer": ("lowformer_b0", (64, 96), {}),
    "mambaout": ("test_mambaout", (64, 96), {}),
    "maxxvit": ("test_maxvit", (64, 96), {"img_size": (64, 96)}),
    "metaformer": ("poolformer_s12", (64, 96), {}),
    "mlp_mixer": ("mixer_s32_224", (64, 96), {"img_size": (64, 96)}),
    "mobilenetv3": ("mobilenetv3_small_050", (64, 96), {}),
    "mobilenetv5": ("mobilenetv5_base", (64, 64), {"channel_multiplier": 0.25}),
    "mobilevit": ("mobilevit_xxs", (96, 128), {}),
    "mvitv2": ("mvitv2_tiny", (64, 64), {"img_size": 64}),
    "naflexvit": (
        "naflexvit_base_patch16_gap",
        (64, 96),
        {"depth": 2, "embed_dim": 48, "num_heads": 2},
    ),
    "nasnet": ("nasnetalarge", (96, 128), {"num_features": 192, "stem_size": 8}),
    "nest": ("nest_tiny", (64, 64), {"img_size": 64}),
    "nextvit": ("nextvit_small", (64, 96), {}),
    "nfnet": ("test_nfnet", (64, 96), {}),
    "pit": ("pit_ti_224", (64, 96), {"img_size": (64, 96)}),
    "pnasnet": ("pnasnet5large", (96, 128), {}),
    "pvt_v2": ("pvt_v2_b0", (64, 96), {"depths": (1, 1, 1, 1)}),
    "qwen3_vit": (
        "qwen3_vit_88m",
        (64, 96),
        {"img_size": (64, 96), "depth": 2, "embed_dim": 64, "num_heads": 2},
    ),
    "rdnet": ("rdnet_tiny", (64, 96), {}),
    "regnet": ("regnetx_002", (64, 96), {}),
    "repghost": ("repghostnet_050", (64, 96), {}),
    "repvit": ("repvit_m0_9", (64, 96), {}),
    "res2net": ("res2net50_48w_2s", (64, 96), {"layers": (1, 1, 1, 1)}),
    "resnest": ("resnest14d", (64, 96), {}),
    "resnet": ("test_resnet", (64, 96), {}),
    "resnetv2": ("resnetv2_18", (64, 96), {}),
    "rexnet": ("rexnet_100", (64, 96), {}),
    "selecsls": ("selecsls42", (128, 192), {}),
    "senet": ("legacy_seresnet18", (64, 96), {}),
    "sequencer": ("sequencer2d_s", (64, 96), {"layers": (1, 1, 1, 1)}),
    "shvit": ("shvit_s1", (128, 192), {}),
    "sknet": ("skresnet18", (64, 96), {}),
    "starnet": ("starnet_s050", (64, 96), {}),
    "swiftformer": ("swiftformer_xs", (64, 96), {}),
    "swin_transformer": (
        "swin_tiny_patch4_window7_224",
        (64, 96),
        {
            "img_size": (64, 96),
            "depths": (1, 1, 1, 1),
            "embed_dim": 24,
            "num_heads": (1, 2, 3, 4),
            "window_size": 2,
        },
    ),
    "swin_transformer_v2": (
        "swinv2_tiny_window8_256",
        (64, 96),
        {
            "img_size": (64, 96),
            "depths": (1, 1, 1, 1),
            "embed_dim": 24,
            "num_heads": (1, 2, 3, 4),
            "window_size": 2,
        },
    ),
    "swin_transformer_v2_cr": (
        "swinv2_cr_tiny_224",
        (64, 96),
        {
            "img_size": (64, 96),
            "depths": (1, 1, 1, 1),
            "embed_dim": 24,
            "num_heads": (1, 2, 3, 4),
            "window_size": 2,
        },
    ),
    "tiny_vit": ("tiny_vit_5m_224", (128, 192), {"depths": (1, 1, 1, 1)}),
    "tnt": ("tnt_s_patch16_224", (64, 64), {"img_size": 64, "depth": 2}),
    "tresnet": ("tresnet_m", (64, 96), {"layers": (1, 1, 1, 1)}),
    "twins": ("twins_svt_small", (64, 96), {"img_size": (64, 96), "depths": (1, 1, 1, 1)}),
    "vgg": ("vgg11", (64, 96), {"mlp_ratio": 0.01}),
    "visformer": ("visformer_tiny", (64, 96), {"img_size": (64, 96)}),
    "vision_transformer": ("vit_tiny_patch16_224", (64, 96), {"img_size": (64, 96), "depth": 2}),
    "vision_transformer_hybrid": (
        "vit_tiny_r_s16_p8_224",
        (64, 96),
        {"img_size": (64, 96), "depth": 2},
    ),
    "vision_transformer_relpos": ("test_vit_relpos", (64, 96), {"img_size": (64, 96)}),
    "vision_transformer_sam": (
        "samvit_base_patch16_224",
        (64, 96),
        {"img_size": (64, 96), "depth": 2, "embed_dim": 48, "num_heads": 2, "neck_chans": 32},
    ),
    "vitamin": ("vitamin_small_224", (64, 96), {"img_size": (64, 96), "depth": 2}),
    "volo": ("volo_d1_224", (64, 64), {"img_size": 64}),
    "vovnet": ("ese_vovnet19b_slim_dw", (64, 96), {}),
    "xception": ("legacy_xception", (128, 192), {}),
    "xception_aligned": ("xception41", (128, 192), {}),
    "xcit": ("xcit_nano_12_p16_224", (64, 96), {"depth": 2, "img_size": (64, 96)}),
}


def build(library: str, name: str, options: Options | None = None) -> nn.Module:
    """Return an untrained net in eval mode, in which nothing starts at zero.

    Behind a head of zeros every gradient is zero, and residual branches that end in a norm of zeros
    leave only the shortcuts, which skip most pixels.
    """
    create = timm.create_model if library == "timm" else torchvision.models.get_model
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net: nn.Module = create(name, **(options or {})).eval()
        for module in net.modules():
            if isinstance(module, nn.Linear | nn.BatchNorm2d) and not module.weight.any():
                nn.init.normal_(module.weight, std=0.02)
    return net


def check_corners(net: nn.Module, size: tuple[int, int]) -> tuple[str, Layout, bool]:
    """Return a net's default layer, its layout, and whether what changes in a corner shows there.

    Of five images the last four differ from the first in one corner each. The map of what changes
    must be a map of the images, no axis swapped, no token shifted, and so must the gradient's be. A
    few untrained nets mix the whole image evenly, so that no place shows anything: these get three
    more chances, with weights that keep the variance (He et al., 2015).

    Args:
        net: In eval mode.
        size: (H, W) of the images.
    """
    images = make_corner_images(size)
    layer = default_layer(net, images)
    passed = False
    for seed in (None, 0, 1, 2):
        if seed is not None:
            draw_weights(net, seed)
        with capture(net, layer) as tap:
            gradient = tap.gradient(tap(images).amax(1))
        layout = require_layout(tap.activation, images, net, layer)
        activation = layout.read(tap.activation.detach())
        changes = (activation[1:] - activation[:1]).abs().sum(1)
        has_gradient = bool(layout.read(gradient).flatten(1).any(1).all())
        passed = has_gradient and shows_corners(changes)
        if passed:
            break
    return layer, layout, passed


def draw_weights(net: nn.Module, seed: int) -> None:
    """Draw the weights of all convolutions and linear layers (He et al., 2015)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=math.sqrt(2 / module.weight[0].numel()))


def make_corner_images(size: tuple[int, int]) -> Tensor:
    """Return an image (3, H, W), and four copies with noise in one corner, a quarter each side."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(1, 3, *size, generator=generator).repeat(5, 1, 1, 1)
    height, width = size[0] // 4, size[1] // 4
    for corner in range(4):
        rows = slice(0, height) if corner < 2 else slice(-height, None)
        columns = slice(0, width) if corner % 2 == 0 else slice(-width, None)
        noise = 3 * torch.randn(3, height, width, generator=generator)
        images[corner + 1, :, rows, columns] = noise
    return images


def shows_corners(changes: Tensor) -> bool:
    """Return whether each of four maps (4, h, w) is largest in its own corner.

    Largest in proportion: some changes are larger than others, and a net may amplify what is in one
    place. Both are scaled away, until the four quadrants of each map, and the four maps in each
    quadrant, have the same mean.
    """
    height, width = -(-changes.shape[1] // 2), -(-changes.shape[2] // 2)
    upper, lower = changes[:, :height], changes[:, -height:]
    quadrants = [upper[..., :width], upper[..., -width:], lower[..., :width], lower[..., -width:]]
    means = torch.stack([quadrant.mean((1, 2)) for quadrant in quadrants], 1)
    for _ in range(20):
        means = means / means.mean(0)
        means = means / means.mean(1, keepdim=True)
    return means.argmax(1).tolist() == [0, 1, 2, 3]


def make_rows() -> Iterator[str]:
    """Yield the rows of the table, one for each family."""
    yield "| family | net | images | default layer | map | corner test |"
    yield "|---|---|---|---|---|---|"
    for library, families in (("torchvision", TORCHVISION), ("timm", TIMM)):
        for family, (name, _, _) in families.items():
            net = build(library, name, {"num_classes": 1000})
            size = read_input_size(library, name, net)
            layer, layout, passed = check_corners(net, size)
            yield (
                f"| {library} `{family}` | `{name}` | {size[0]}×{size[1]} | `{layer}` "
                f"| {layout} | {'passed' if passed else 'failed'} |"
            )


def read_input_size(library: str, name: str, net: nn.Module) -> tuple[int, int]:
    """Return the size (H, W) of the images that a net was made for."""
    if library == "timm":
        height, width = net.pretrained_cfg["input_size"][1:]
        return height, width
    side = torchvision.models.get_model_weights(name).DEFAULT.transforms().crop_size[0]
    return side, side


def main(page: Path) -> None:
    """Write the table into a page."""
    torch.set_flush_denormal(True)  # on subnormal features a CPU is a hundred times slower
    text = page.read_text(encoding="utf-8").partition(MARKER)[0]
    versions = f"With torchvision {torchvision.__version__} and timm {timm.__version__}:"
    lines = [text.rstrip(), "", MARKER, "", versions, ""]
    for row in make_rows():
        print(row, flush=True)
        lines.append(row)
    page.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
