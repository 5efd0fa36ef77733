"""Layouts are read as the model says; where two readings of a shape fit, both are named."""

import pytest
import torch
import torch.nn.functional as F
from nets import pictures
from torch import nn
from torch.testing import assert_close

import xcam
from xcam.engine import capture
from xcam.engine.hints import LayoutHints, read_hints
from xcam.engine.layout import find_layout
from xcam.errors import LayerError
from xcam.models import Layout, default_layer, read_map


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().eval()


class Flattened(nn.Module):
    """A backbone that ends in `Flatten(2)`: 256 channels of as many cells as a token has values."""

    def __init__(self, patch=4, channels=256):
        super().__init__()
        self.fc = nn.Linear(channels, 5)
        self.backbone = nn.Sequential(
            *(nn.Conv2d(3, 8, patch, patch), nn.ReLU()),
            *(nn.Conv2d(8, channels, 4, 4), nn.ReLU(), nn.Flatten(2)),
        )

    def forward(self, images):
        return self.fc(self.backbone(images).mean(2))


class Sequence(nn.Module):
    """A convolution over the flattened cells behind the backbone."""

    def __init__(self):
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, 16, 4, 4), nn.Conv1d(16, 16, 3, padding=1)
        self.fc = nn.Linear(16, 5)

    def forward(self, images):
        return self.fc(self.mix(self.stem(images).relu().flatten(2)).mean(2))


class Registers(nn.Module):
    """A transformer's outline whose image tokens stand behind a class token and registers."""

    def __init__(self, patch=8, registers=4, declared=True):
        super().__init__()
        # Overlapping patches do not tell their size by the convolution.
        self.patch_embed = nn.Conv2d(3, 12, 3 * patch, patch, padding=patch)
        self.prefix = nn.Parameter(torch.randn(1, 1 + registers, 12))
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 5)
        if declared:
            self.num_prefix_tokens = 1 + registers

    def forward(self, images):
        tokens = self.patch_embed(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.prefix.expand(len(tokens), -1, -1), tokens], 1)
        return self.head(self.norm(tokens).mean(1))


class Windows(nn.Module):
    """Tokens that lie window by window, as Hiera's, which says how to put them in order."""

    class Reroll(nn.Module):
        def __init__(self):
            super().__init__()
            self.schedule = {0: ([(2, 2)], [4, 6]), 1: ([], [2, 3])}

        def forward(self, tokens, block):
            if block:
                return tokens.unflatten(1, (2, 3))
            # All four members of each window by turns: (2 x 2) x (2 x 3).
            windows = tokens.unflatten(1, (2, 2, 2, 3))
            return windows.permute(0, 3, 1, 4, 2, 5).flatten(3, 4).flatten(1, 2)

    def __init__(self):
        super().__init__()
        self.embed, self.reroll = nn.Conv2d(3, 12, 4, 4), self.Reroll()
        self.blocks, self.head = nn.Sequential(nn.Linear(12, 12), nn.ReLU()), nn.Linear(12, 5)

    def forward(self, images):
        maps = self.embed(images).unflatten(2, (2, 2)).unflatten(4, (3, 2))  # (B, C, y, sy, x, sx)
        tokens = maps.permute(0, 3, 5, 2, 4, 1).flatten(1, 4)
        return self.head(self.blocks(tokens).square().mean(1))


class ChannelsLast(nn.Module):
    """Maps as high and wide as they have channels, channels last as their format says."""

    def __init__(self, output_fmt):
        super().__init__()
        self.output_fmt = output_fmt
        self.embed, self.block = nn.Conv2d(3, 8, 4, 4), nn.Sequential(nn.Hardtanh())
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, images):
        return self.head(self.norm(self.block(self.embed(images).movedim(1, 3))).mean((1, 2)))


@pytest.mark.parametrize(("size", "patch"), [(224, 8), (64, 4)])
@pytest.mark.parametrize("method", ["gradcam", "eigencam", "ablationcam"])
def test_flattened_channels_are_not_patches(size, patch, method):
    net, images = seeded(lambda: Flattened(patch)), pictures(1, size=size)
    expected = xcam.explain(net, images, 1, method, layer="backbone.3")
    assert default_layer(net, images) == "backbone.3"
    assert_close(xcam.explain(net, images, 1, method).raw, expected.raw)
    for layer in ("backbone", "backbone.4"):
        assert_close(xcam.explain(net, images, 1, method, layer=layer).raw, expected.raw)


def test_channels_of_a_convolution_over_cells():
    net, images = seeded(Sequence), pictures(2, size=16)
    features = net.mix(net.stem(images).relu().flatten(2)).unflatten(2, (4, 4)).detach()
    got = xcam.explain(net, images, 1, "gradcam", layer="mix")
    expected = (net.fc.weight[1][:, None, None] * features).sum(1) / 16
    assert_close(got.raw, expected.detach())


@pytest.mark.parametrize(
    ("size", "registers", "grid"),
    [((16, 32), 4, (2, 4)), ((24, 8), 1, (3, 1)), ((40, 16), 8, (5, 2))],
)
def test_number_of_prefix_tokens_is_read_from_the_model(size, registers, grid):
    net = seeded(lambda: Registers(registers=registers))
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    got = xcam.explain(net, images, 1, "conv_output", layer="norm")
    tokens = net.patch_embed(images).flatten(2).transpose(1, 2)
    assert_close(got.raw, net.norm(tokens).mean(2).unflatten(1, grid).detach())
    assert default_layer(net, images) == "norm"


def test_registers_that_the_model_does_not_declare_are_refused_by_both_readings():
    net, images = seeded(lambda: Registers(declared=False)), torch.rand(1, 3, 16, 32)
    with pytest.raises(
        LayerError,
        match=r"can be read as \dx\d tokens behind 3 others.*or as 2x4 tokens behind 5 others.*"
        r"choose a layer that gives a map \(B, C, h, w\)",
    ):
        xcam.explain(net, images, 1, "conv_output", layer="norm")
    with pytest.raises(LayerError, match=r"'norm', .* 5 others.*such as layer='patch_embed', or"):
        default_layer(net, images)
    assert xcam.explain(net, images, 1, "conv_output", layer="patch_embed").raw.shape == (1, 2, 4)


def test_size_of_patches_is_read_from_their_convolution_and_attributes():
    said = read_hints(nn.Conv2d(3, 12, 14, 14), 3)
    assert said.patches == ((14, 14),)
    assert find_layout((1, 13, 12), (1, 3, 28, 56), said) == Layout("tokens", (2, 4), 5)
    assert read_hints(nn.Conv2d(12, 12, 2, 2), 3).patches == ()  # of no image
    net = nn.Identity()
    net.patch_size, net.grid_size = (8, 16), (4, 4)
    said = read_hints(net, 3)
    assert (said.patches, said.grids) == (((8, 16),), ((4, 4),))
    assert find_layout((1, 17, 12), (1, 3, 32, 64), said) == Layout("tokens", (4, 4), 1)


@pytest.mark.parametrize("method", ["conv_output", "gradcam", "ablationcam"])
def test_tokens_in_windows_are_put_in_order(method):
    net = seeded(Windows)
    images = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    rows = net.blocks(net.embed(images).movedim(1, 3)).movedim(3, 1).detach().requires_grad_()
    logits = net.head(rows.square().mean((2, 3)))
    got = xcam.explain(net, images, 1, method, layer="blocks")
    if method == "conv_output":
        expected = rows.mean(1)
    elif method == "gradcam":
        (gradient,) = torch.autograd.grad(logits[:, 1].sum(), rows)
        expected = (gradient.mean((2, 3), keepdim=True) * rows).sum(1)
    else:
        share = net.head.weight[1] * rows.square().mean((2, 3)) / logits[:, 1:2].abs()
        expected = (share[:, :, None, None] * rows).sum(1)
    assert got.raw.shape == (2, 4, 6)
    assert_close(got.raw, expected.detach(), rtol=1e-3, atol=1e-4)


def test_hiera_of_timm():
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng(devices=[]):
        net = timm.create_model("hiera_tiny_224", img_size=64).eval()
    images = pictures(1, size=64)
    for layer, block in (("blocks.0", 0), ("blocks.2", 2)):
        with capture(net, layer, grad=False) as tap, torch.no_grad():
            tap(images)
            expected = net.reroll(tap.activation, block).movedim(3, 1)
        assert_close(read_map(tap.activation, images, net, layer), expected)


def test_square_maps_with_as_many_channels_are_read_by_what_the_model_says():
    images = pictures(1, size=32)  # 8 x 8 maps of 8 channels
    net = seeded(lambda: ChannelsLast("NHWC"))
    maps = net.embed(images).detach()
    for layer, expected in (("embed", maps), ("block", net.block(maps))):
        got = xcam.explain(net, images, 1, "conv_output", layer=layer).raw
        assert_close(got, expected.mean(1))
    silent = seeded(lambda: ChannelsLast(None))
    with pytest.raises(
        LayerError, match=r"an? 8x8 map, channels first, or as a 8x8 map, channels la"
    ):
        xcam.explain(silent, images, 1, "conv_output", layer="block")
    norm = xcam.explain(silent, images, 1, "conv_output").raw  # the default, a layer norm
    assert_close(norm, silent.norm(maps.movedim(1, 3)).mean(3).detach())


def test_layer_norm_says_which_axis_holds_channels():
    said = LayoutHints(norm_widths=frozenset({256}), widths=frozenset({256, 49}))
    images = (1, 3, 224, 224)
    assert find_layout((1, 256, 49), images, said) == Layout("NCL", (7, 7))
    assert find_layout((1, 49, 256), images, said) == Layout("tokens", (7, 7))
    assert find_layout((1, 256, 50), images, said) is None  # 256 channels, of no grid


class Square(nn.Module):
    """As many tokens as channels: nothing tells the axes apart."""

    def __init__(self, patch, width, convolution=False):
        super().__init__()
        self.patch = patch
        embed = nn.Conv2d(3, width, patch, patch) if convolution else nn.Linear(3 * patch**2, width)
        self.embed, self.head = embed, nn.Linear(width, 5)
        self.block = nn.TransformerEncoderLayer(width, 2, width, 0.0, batch_first=True)

    def forward(self, images):
        if isinstance(self.embed, nn.Conv2d):
            tokens = self.embed(images).flatten(2).transpose(1, 2)
        else:
            pixels = F.unfold(images, self.patch, stride=self.patch)
            tokens = self.embed(pixels.transpose(1, 2))
        return self.head(self.block(tokens).mean(1))


@pytest.mark.parametrize(
    ("size", "patch", "width", "grid"),
    [((64, 64), 8, 64, "8x8"), ((64, 32), 8, 32, "8x4"), ((32, 96), 16, 12, "2x6")],
)
def test_search_refuses_a_layer_that_can_be_read_in_two_ways(size, patch, width, grid):
    net, images = seeded(lambda: Square(patch, width)), torch.rand(1, 3, *size)
    larger = f"{2 * size[0]}x{2 * size[1]}"
    message = (
        f"'block', of shape .* can be read as {grid} tokens .*, or as a {grid} map, channels first "
        f"for images of shape .*; use larger images, such as {larger}, or a method that reads no"
    )
    with pytest.raises(LayerError, match=message):
        xcam.explain(net, images, 1)
    got = xcam.explain(net, images.repeat(1, 1, 2, 2), 1)  # the remedy
    grid = [2 * side // patch for side in size]
    assert (got.method.layer, [*got.raw.shape[1:]]) == ("block", grid)


def test_search_takes_no_earlier_layer_instead_of_one_that_can_be_read_in_two_ways():
    net, images = seeded(lambda: Square(8, 64, convolution=True)), torch.rand(1, 3, 64, 64)
    with pytest.raises(LayerError, match=r"'block', .* or as a 8x8 map.*such as layer='embed', or"):
        xcam.explain(net, images, 1)
    got = xcam.explain(net, images, 1, "conv_output", layer="embed").raw
    assert_close(got, net.embed(images).mean(1).detach())
