"""The attention among tokens: by hand in numpy, of other libraries' nets, fused or not."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import pictures
from scipy.special import erf, softmax
from torch import nn
from torch.testing import assert_close
from torchvision.models import VisionTransformer

import xcam
from xcam.errors import LayerError
from xcam.methods.attention.recording import AttentionRecorder
from xcam.models.toy import GapNet, TokenNet

METHODS = ("attention_rollout", "attention_gradient", "legrad")
IMAGES = pictures(2, 3, 8, 8)
NET = TokenNet(width=6, heads=2, num_classes=3)


class ByHand:
    """The toy transformer in numpy, in which the attention can be changed.

    Args:
        image: (C, H, W) of 8x8 pixels: a class token and 2x2 patches.
    """

    def __init__(self, net, image):
        self.weights = {name: value.double().numpy() for name, value in net.state_dict().items()}
        with torch.no_grad():
            patches = net.patch_embed(image[None])
            positions = F.interpolate(net.positions, patches.shape[2:], mode="bilinear")
            patches = (patches + positions).flatten(2)[0].T
        self.tokens = np.concatenate([self.weights["class_token"][0], patches.double().numpy()])

    def linear(self, name, values):
        return values @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name, values):
        centered = values - values.mean(1, keepdims=True)
        scaled = centered / np.sqrt(centered.var(1, keepdims=True) + 1e-5)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def block(self, number, tokens, change):
        """Return what a block gives, and its attention (heads, T, T) before the change."""
        name = f"blocks.{number}"
        qkv = self.linear(f"{name}.attention.qkv", self.norm(f"{name}.norm1", tokens))
        query, key, value = qkv.reshape(5, 3, 2, 3).transpose(1, 2, 0, 3)
        attention = softmax(query @ key.transpose(0, 2, 1) / math.sqrt(3), axis=2)
        mixed = ((attention + change) @ value).transpose(1, 0, 2).reshape(5, 6)
        tokens = tokens + self.linear(f"{name}.attention.projection", mixed)
        hidden = self.linear(f"{name}.mlp.0", self.norm(f"{name}.norm2", tokens))
        hidden = hidden * (1 + erf(hidden / math.sqrt(2))) / 2
        return tokens + self.linear(f"{name}.mlp.2", hidden), attention

    def read(self, tokens):
        return self.linear("head", self.norm("norm", tokens))[0]

    def attention(self):
        tokens, first = self.block(0, self.tokens, 0)
        return first, self.block(1, tokens, 0)[1]

    def logits(self, changes=(0, 0)):
        tokens, _ = self.block(0, self.tokens, changes[0])
        return self.read(self.block(1, tokens, changes[1])[0])

    def layer_logits(self, number, change=0):
        """Return the logits of the mean of the tokens behind a block, whose attention changes."""
        tokens = self.tokens if number == 0 else self.block(0, self.tokens, 0)[0]
        tokens = self.block(number, tokens, change)[0]
        return self.read(np.broadcast_to(tokens.mean(0), tokens.shape))


def differentiate(function):
    """Return central differences of a function of changes of an attention matrix."""
    found = np.zeros((2, 5, 5))
    for place in np.ndindex(found.shape):
        change = np.zeros_like(found)
        change[place] = 1e-5
        found[place] = (function(change) - function(-change)) / 2e-5
    return found


@pytest.fixture(scope="module")
def by_hand():
    return [ByHand(NET, image) for image in IMAGES]


def explain(method, net=NET, images=IMAGES, target=1, **settings):
    return xcam.explain(net, images, target, method=method, **settings).raw


def compare(found, expected):
    assert_close(found, torch.tensor(np.stack(expected)).float(), atol=2e-6, rtol=2e-4)


def test_toy_net_in_numpy_is_the_net(by_hand):
    with torch.no_grad():
        compare(NET(IMAGES), [each.logits() for each in by_hand])


def test_rollout_by_hand(by_hand):
    expected = []
    for each in by_hand:
        rollout = np.eye(5)
        for attention in each.attention():
            rollout = (attention.mean(0) / 2 + np.eye(5) / 2) @ rollout
        expected.append(rollout[0, 1:].reshape(2, 2))
    compare(explain("attention_rollout"), expected)


def test_attention_times_gradient_by_hand(by_hand):
    expected = []
    for each in by_hand:
        first, second = each.attention()
        gradients = (
            differentiate(lambda change, each=each: each.logits((change, 0))[1]),
            differentiate(lambda change, each=each: each.logits((0, change))[1]),
        )
        relevance = np.eye(5)
        for attention, gradient in zip((first, second), gradients, strict=True):
            relevance = relevance + np.maximum(gradient * attention, 0).mean(0) @ relevance
        expected.append(relevance[0, 1:].reshape(2, 2))
    compare(explain("attention_gradient"), expected)


@pytest.mark.parametrize("layers", [None, 1])
def test_legrad_by_hand(by_hand, layers):
    expected = []
    for each in by_hand:
        rows = []
        for number in range(2)[-(layers or 2) :]:
            gradient = differentiate(
                lambda change, each=each, number=number: each.layer_logits(number, change)[1]
            )
            rows.append(np.maximum(gradient, 0).mean((0, 1)))
        expected.append(np.mean(rows, 0)[1:].reshape(2, 2))
    compare(explain("legrad", n_layers=layers), expected)


def make_torchvision_net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = VisionTransformer(16, 4, 2, 2, 8, 16, num_classes=3).eval()
        nn.init.normal_(net.heads.head.weight)  # which starts at zero
    return net


def test_legrad_agrees_with_torchcam():
    torchcam = pytest.importorskip("torchcam.methods")
    net, images = make_torchvision_net(), pictures(2, 3, 16, 16)
    with torchcam.LeGrad(net, [*net.encoder.layers]) as extractor:
        expected = extractor.compute_cams([2, 0], net(images), normalized=False)[0]
    assert expected.any()
    assert_close(explain("legrad", net, images, [2, 0]), expected, atol=1e-7, rtol=1e-4)


def test_multi_head_attention_module_gives_what_its_formula_gives():
    """torchvision's transformer, whose attention is one function of torch."""
    net, images = make_torchvision_net(), pictures(2, 3, 16, 16)
    weights = []
    for block in net.encoder.layers:
        block.self_attention.register_forward_hook(
            lambda module, given, _: weights.append(module.wrapped(*given))
        )
        attention = block.self_attention
        attention.wrapped = lambda query, key, value, module=attention: F.softmax(
            torch.einsum(
                "bihd,bjhd->bhij",
                *(
                    (query @ part.T + bias).unflatten(2, (2, 4))
                    for part, bias in zip(
                        module.in_proj_weight.split(8)[:2],
                        module.in_proj_bias.split(8)[:2],
                        strict=True,
                    )
                ),
            )
            / 2,
            -1,
        )
    with torch.no_grad():
        net(images)
    first, second = (weight.mean(1) / 2 + torch.eye(17) / 2 for weight in weights[:2])
    expected = (second @ first)[:, 0, 1:].reshape(2, 4, 4)
    for block in net.encoder.layers:
        block.self_attention._forward_hooks.clear()
    assert_close(explain("attention_rollout", net, images), expected)


TIMM = {  # and the tokens that the classifier reads: of the class, of two, patches, or pooled
    "vit_tiny_patch16_224": [0],
    "deit_tiny_distilled_patch16_224": [0, 1],
    "eva02_tiny_patch14_224": range(1, 7),
    "vit_base_patch16_siglip_224": None,
}


def roll_out_by_hand(net, images):
    """Return the rollout (B, T, T) of timm's net, unfused, and what its pooling reads."""
    matrices, pooled, handles = [], [], []
    for block in net.blocks:
        assert block.attn.fused_attn  # xcam switches it off within the pass alone
        block.attn.fused_attn = False
        drop = block.attn.attn_drop
        handles.append(
            drop.register_forward_hook(lambda _, given, __: matrices.append(given[0].mean(1)))
        )
    if net.attn_pool is not None:
        handles.append(
            net.attn_pool.register_forward_hook(lambda _, given, __: pooled.append(given[0]))
        )
    with torch.no_grad():
        net(images)
    for handle in handles:
        handle.remove()
    identity = torch.eye(matrices[0].shape[1])
    rollout = identity
    for matrix in matrices:
        rollout = (matrix + identity) / 2 @ rollout
    return rollout, pooled


@pytest.mark.parametrize("name", TIMM)
def test_map_is_of_the_tokens_that_the_classifier_reads(name):
    timm = pytest.importorskip("timm")
    patch = 14 if "14" in name else 16
    options = {"embed_dim": 16, "num_heads": 2} if "base" in name else {}
    size = (2 * patch, 3 * patch)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = timm.create_model(name, img_size=size, depth=2, num_classes=3, **options).eval()
        images = torch.rand(2, 3, *size)
    found = explain("attention_rollout", net, images)
    with torch.no_grad():
        rollout, pooled = roll_out_by_hand(net, images)
        if pooled:
            pool, tokens = net.attn_pool, pooled[0]
            query = pool.q(pool.latent).reshape(1, 1, 2, 8).transpose(1, 2)
            key = pool.kv(tokens)[..., :16].reshape(2, 6, 2, 8).transpose(1, 2)
            weights = (query * pool.scale @ key.transpose(2, 3)).softmax(-1)
            expected = weights.mean(1) @ rollout
        else:
            expected = rollout[:, [*TIMM[name]]].mean(1)
    assert_close(found, expected.reshape(2, -1)[:, -6:].reshape(2, 2, 3))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"scale": 0.3},
        {"is_causal": True},
        {"attn_mask": torch.eye(5).bool()},
        {"attn_mask": torch.randn(5, 5, generator=torch.Generator().manual_seed(1))},
    ],
    ids=["plain", "scaled", "causal", "masked", "biased"],
)
def test_recorded_attention_is_torchs(settings):
    query, key, value = torch.randn(3, 2, 4, 5, 8, generator=torch.Generator().manual_seed(0))
    expected = F.scaled_dot_product_attention(query, key, value, **settings)
    with AttentionRecorder(grad=False) as recorder:
        found = F.scaled_dot_product_attention(query, key, value, **settings)
    assert_close(found, expected)
    assert_close(recorder.matrices[0] @ value, expected)


def test_recorded_attention_of_grouped_heads_is_torchs():
    query = torch.randn(2, 4, 5, 8, generator=torch.Generator().manual_seed(0))
    key, value = query[:, :2] * 2, query[:, 2:]
    expected = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    with AttentionRecorder(grad=False):
        found = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    assert_close(found, expected)


@pytest.mark.parametrize("method", METHODS)
def test_net_without_attention_is_refused(method):
    with pytest.raises(LayerError, match="computes no attention that can be seen"):
        explain(method, GapNet())


@pytest.mark.parametrize("method", METHODS)
def test_windows_are_refused(method):
    timm = pytest.importorskip("timm")
    net = timm.create_model(
        "swin_tiny_patch4_window7_224",
        **{"img_size": 32, "window_size": 2, "embed_dim": 8},
        **{"num_heads": (1, 2), "depths": (1, 1)},
    ).eval()
    with pytest.raises(LayerError, match="a layer has 16 windows of 4 queries and 4 keys"):
        explain(method, net, pictures(1, 3, 32, 32))


class PoolsBeside(TokenNet):
    """Pools its tokens by attention, and does not read what that gives, as SigLIP's classifier."""

    def __init__(self):
        super().__init__(width=6, heads=2, num_classes=3)
        self.load_state_dict(NET.state_dict())
        self.pooling = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, images):
        taken = []
        with self.norm.register_forward_hook(lambda _, __, tokens: taken.append(tokens)):
            logits = super().forward(images)
        (tokens,) = taken
        self.pooling(tokens[:, :1], tokens, tokens)
        return logits


@pytest.mark.parametrize("method", METHODS)
def test_attention_that_the_scores_do_not_read_is_left_out(method):
    assert_close(explain(method, PoolsBeside().eval()), explain(method), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layers", [0, 3])
def test_legrad_refuses_layers_that_the_net_does_not_have(layers):
    with pytest.raises(ValueError, match="from 1 to 2, since the model has 2 layers"):
        explain("legrad", n_layers=layers)


class BareAttention(nn.Module):
    """Attention in the net's own forward, or in a module that returns no tokens with the rest."""

    def __init__(self, module):
        super().__init__()
        self.patch_embed, self.head = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 3)
        self.attention = TokenNet(width=6, heads=2).blocks[0].attention if module else None

    def forward(self, images):
        tokens = self.patch_embed(images).flatten(2).transpose(1, 2)
        if self.attention is None:
            mixed = (tokens @ tokens.transpose(1, 2)).softmax(2) @ tokens
        else:
            mixed = self.attention(tokens)
        return self.head((tokens + mixed).mean(1))


@pytest.mark.parametrize(
    ("module", "message"),
    [(False, "no module of the model returns"), (True, "does not take the tokens of several")],
)
def test_legrad_needs_blocks(module, message):
    net = BareAttention(module).eval()
    with pytest.raises(LayerError, match=f"{message}.*use 'attention_gradient'"):
        explain("legrad", net)
    assert explain("attention_gradient", net).shape == (2, 2, 2)


def test_score_of_a_callable_is_explained():
    expected = explain("legrad", target=2)
    found = explain("legrad", target=lambda output, rows: output[:, 2])
    assert_close(found, expected)
    expected = explain("attention_gradient", target=2)
    found = explain("attention_gradient", target=lambda output, rows: output[:, 2])
    assert_close(found, expected)


def test_checkpointed_net_gives_the_same_maps():
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=3).eval()
    images = pictures(1, 3, 32, 32)
    plain = [explain(method, net, images) for method in METHODS]
    net.set_grad_checkpointing(True)
    for method, expected in zip(METHODS, plain, strict=True):
        assert_close(explain(method, net, images), expected)
