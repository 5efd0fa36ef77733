"""Where CA-Stream's blocks go, what they weigh, what is frozen, and what is refused."""

import itertools

import pytest
import torch
import torch.nn.functional as F
import torchvision
from nets import pictures
from torch import nn
from torch.utils.data import TensorDataset
from trainings import assert_same_bits, weights

import xcam
from xcam.errors import LayerError
from xcam.methods import CAStream
from xcam.models import Normalized

zoo = torchvision.models
IMAGES, LABELS = pictures(4, size=64), torch.tensor([0, 1, 2, 1])
RESNET = ("maxpool", "layer1", "layer2", "layer3", "layer4")
CAMS = [name for name in xcam.list_methods() if xcam.get_method(name).spec.family == "cam"]
NINE = tuple(f"features.{n}" for n in range(9))


def attach(name, **settings):
    with torch.device("meta"):
        return CAStream(**settings).attach(getattr(zoo, name)())


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


def chain(*widths):
    """Parameters of a token and of projections from each width to the next."""
    return widths[0] + sum(a * b + b for a, b in itertools.pairwise(widths))


@pytest.mark.parametrize(
    ("name", "settings", "layers", "parameters"),
    [
        ("resnet18", {}, RESNET, 439_808),
        ("resnet34", {}, RESNET, 439_808),
        ("resnet50", {}, RESNET, 6_969_152),
        ("resnet101", {}, RESNET, 6_969_152),
        ("resnet152", {}, RESNET, 6_969_152),
        ("resnet50", {"placement": "released"}, RESNET, 6_969_152),
        ("resnext50_32x4d", {}, RESNET, 6_969_152),
        ("wide_resnet50_2", {}, RESNET, 6_969_152),
        *(
            (name, {}, [f"features.{n}" for n in (0, 1, 3, 5, 7)], parameters)
            for name, parameters in (
                ("convnext_tiny", 988_416),
                ("convnext_small", 988_416),
                ("convnext_base", chain(128, 128, 256, 512, 1024, 1024)),
                ("convnext_large", chain(192, 192, 384, 768, 1536, 1536)),
            )
        ),
        *(
            (name, {"placement": "released"}, [f"features.{n}" for n in (0, 2, 4, 7)], parameters)
            for name, parameters in (
                ("convnext_tiny", 979_104),
                ("convnext_small", 979_104),
                ("convnext_base", 1_739_648),
                ("convnext_large", 3_912_000),
            )
        ),
        ("efficientnet_b0", {}, NINE, chain(32, 16, 24, 40, 80, 112, 192, 320, 1280, 1280)),
        ("efficientnet_b1", {}, NINE, chain(32, 16, 24, 40, 80, 112, 192, 320, 1280, 1280)),
        ("efficientnet_b2", {}, NINE, chain(32, 16, 24, 48, 88, 120, 208, 352, 1408, 1408)),
        ("efficientnet_b4", {}, NINE, chain(48, 24, 32, 56, 112, 160, 272, 448, 1792, 1792)),
        ("efficientnet_b5", {}, NINE, chain(48, 24, 40, 64, 128, 176, 304, 512, 2048, 2048)),
        ("efficientnet_b3", {}, NINE, chain(40, 24, 32, 48, 96, 136, 232, 384, 1536, 1536)),
        ("efficientnet_b6", {}, NINE, chain(56, 32, 40, 72, 144, 200, 344, 576, 2304, 2304)),
        (
            "mobilenet_v2",
            {},
            [f"features.{n}" for n in (0, 1, 3, 6, 10, 13, 16, 17, 18)],
            chain(32, 16, 24, 32, 64, 96, 160, 320, 1280, 1280),
        ),
        (
            "densenet121",
            {},
            [f"features.{n}" for n in ("pool0", *(f"denseblock{n}" for n in "123"), "norm5")],
            chain(64, 256, 512, 1024, 1024, 1024),
        ),
        ("resnet50", {"variant": "final"}, ["layer4"], 4_198_400),
        ("convnext_tiny", {"variant": "final"}, ["features.7"], chain(768, 768, 768) + 2 * 768),
        ("resnet50", {"variant": "shared"}, RESNET, 64),
        (
            "resnet18",
            {"variant": "v2"},
            ["layer3", "layer4"],
            chain(256, 512, 512) + 2 * (chain(512, 1024, 512) - 512),
        ),
        (
            "resnet50",
            {"variant": "v3"},
            RESNET,
            6_969_152 + 2 * sum(d * d + d for d in (64, 256, 512, 1024, 2048)),
        ),
        (
            "resnet18",
            {"variant": "v4"},
            RESNET,
            512
            + sum(2 * (d * 512 + 512) for d in (64, 64, 128, 256, 512))
            + 5 * (2 * 512 + chain(512, 256, 512) - 512),
        ),
    ],
)
def test_blocks_and_parameters(name, settings, layers, parameters):
    net = attach(name, **settings)
    assert net.method.layers == tuple(layers)
    assert count(net.head) == parameters
    assert count(net) == count(net.classifier) + parameters


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("resnet18", ("avgpool", "output")),
        ("convnext_tiny", ("avgpool", "output")),
        ("densenet121", ("classifier", "input")),
        ("mobilenet_v2", ("classifier.0", "input")),
        ("mobilenet_v3_small", ("avgpool", "output")),
        ("shufflenet_v2_x1_0", ("fc", "input")),
    ],
)
def test_query_stands_for_the_pooled_features(name, place):
    assert attach(name).head.pooled == place


class Detour(nn.Module):
    """Its pooled features are not all that the logits depend on."""

    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, 3)

    def forward(self, images):
        features = self.conv(images)
        return self.fc(self.pool(features).flatten(1)) + features.amax((1, 2, 3))[:, None]


class Hidden(nn.Module):
    """Its classifier has hidden layers as wide as the pooled features."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU())
        self.stage = nn.Sequential(nn.Conv2d(4, 6, 3, 2), nn.ReLU(inplace=True))
        self.mlp = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.Linear(6, 3))

    def forward(self, images):
        return self.mlp(self.stage(self.stem(images)).mean((2, 3)))


class Written(nn.Module):
    """A `Hidden` with a stream, written down as an ordinary net."""

    def __init__(self, net):
        super().__init__()
        self.classifier, (self.first, self.last) = net.classifier, net.head.blocks
        self.token = net.head.token

    def forward(self, images):
        features = self.classifier.stem(images)
        query = self.attend(features, self.token[:, 0].expand(len(images), -1), self.first)
        query = self.attend(self.classifier.stage(features), query, self.last)
        return self.classifier.mlp(query)

    def attend(self, features, query, block):
        cells = features.flatten(2)
        weights = ((query[:, None] @ cells) / query.shape[1] ** 0.5).softmax(2)
        return F.linear((cells * weights).sum(2), block.project.weight, block.project.bias)


class TestOtherNets:
    @pytest.mark.parametrize("name", ["vgg11", "squeezenet1_1", "vit_b_16"])
    def test_nets_without_pooled_features_are_refused(self, name):
        with pytest.raises(LayerError, match=r"no pooled features .* such as a ResNet"):
            attach(name)

    def test_transformer_without_maps_is_refused(self):
        with pytest.raises(LayerError, match=r"no layer of Swin.* gives a feature map"):
            attach("swin_t")

    def test_way_around_the_pooled_features_is_refused(self):
        with pytest.raises(LayerError, match="Detour has no pooled features"):
            CAStream().attach(Detour())

    def test_convolution_that_covers_the_map_is_no_pooling(self):
        """As in timm's VGGs, whose linear layers are convolutions."""
        layers = [nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 8, 7), nn.ReLU()]
        net = nn.Sequential(*layers, nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(8, 3))
        with pytest.raises(LayerError, match="Sequential has no pooled features"):
            CAStream().attach(net, torch.zeros(1, 3, 15, 15))
        net.insert(4, nn.AdaptiveAvgPool2d(1))
        pooled = CAStream().attach(net, torch.zeros(1, 3, 17, 17)).head.pooled
        assert pooled == ("4", "output")

    def test_one_cell_of_the_last_stage_is_replaced(self):
        """Of images of 32 pixels a ResNet's last stage gives one cell, which nothing attends to."""
        net = CAStream().attach(zoo.resnet18(), torch.zeros(1, 3, 32, 32))
        assert net.method.layers == RESNET[:4]
        assert net.head.pooled == ("layer4.1", "output")
        assert net(pictures(size=32)).shape == (2, 1000)

    def test_hidden_layers_come_behind_the_query(self):
        net = CAStream().attach(Hidden())
        assert net.method.layers == ("stem", "stage")
        assert net.head.pooled == ("mlp.0", "input")

    def test_named_layers_run_in_their_order(self):
        model = Normalized(zoo.resnet18(num_classes=3), (0.5,), (0.5,))
        net = CAStream(layers=("model.layer3", "layer2.0")).attach(model)
        assert net.method.layers == ("layer2.0", "layer3")
        assert count(net.head) == chain(128, 256, 512)
        with pytest.raises(ValueError, match=r"layers must differ, got \('layer3', 'layer3'\)"):
            CAStream(layers=("layer3", "layer3")).attach(model)
        with pytest.raises(LayerError, match=r"layer 'avgpool' has an output of shape"):
            CAStream(layers=("layer3", "avgpool")).attach(model)

    def test_settings_that_do_not_fit_are_refused(self):
        for settings, sentence in (
            ({"variant": "v5"}, "variant must be 'final', .* got 'v5'"),
            ({"placement": "all"}, "placement must be 'stages', 'released' or None, got 'all'"),
            ({"frozen": "bn"}, "frozen must be True or False, 'weights' or None, got 'bn'"),
            ({"layers": ()}, "layers must name at least one"),
            (
                {"layers": "a"},
                r"layers must be None or a tuple, each a string, got 'a'; give \('a',\)",
            ),
            ({"variant": "v3", "heads": 2}, "'v3' learns keys for one head, got heads=2"),
            ({"variant": "final", "layers": ("a", "b")}, "'final' has no more blocks than 1, got"),
            ({"variant": "v2", "layers": ("a", "b", "c")}, "'v2' has no more blocks than 2, got"),
        ):
            with pytest.raises((TypeError, ValueError), match=sentence):
                CAStream(**settings)
        with pytest.raises(ValueError, match=r"'maxpool' has 64, got heads=3"):
            CAStream(heads=3).attach(zoo.resnet18())
        plain = nn.Sequential(
            *(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1)),
            *(nn.Flatten(), nn.Linear(4, 3)),
        )
        assert CAStream(variant="shared").attach(plain).method.layers == ("0", "1", "2")

        net = Hidden()
        net.stage = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(16, 6, 3), nn.ReLU())
        with pytest.raises(LayerError, match=r"'shared' needs .* 4 channels .* to the 6 of"):
            CAStream(variant="shared").attach(net, torch.zeros(1, 3, 33, 33))

    def test_layers_and_placement_that_contradict_are_refused(self):
        sentence = r"'released' has the layers \('maxpool', .*\), got layers=\('layer4',\); give"
        with pytest.raises(ValueError, match=sentence):
            attach("resnet18", layers=("layer4",), placement="released")
        assert attach("resnet18", layers=RESNET, placement="released").method.layers == RESNET
        assert attach("resnet18", layers=("layer4",)).method.placement is None

    def test_released_blocks_of_another_convnext_are_refused(self):
        net = type("ConvNeXt", (Hidden,), {})()
        with pytest.raises(LayerError, match=r"torchvision's .* got a ConvNeXt of .*='stages'"):
            CAStream(placement="released").attach(net)
        assert CAStream(placement="stages").attach(net).method.layers == ("stem", "stage")

    @pytest.mark.parametrize(
        ("name", "layer"),
        [
            ("convnext_tiny", "features.1.0.block.3"),
            ("efficientnet_b0", "features.1.0.block.1.fc1"),
        ],
    )
    def test_net_with_more_than_convolutions_shares_none(self, name, layer):
        with pytest.raises(LayerError, match=rf"'shared' .* layer {layer!r} is linear, or reads"):
            attach(name, variant="shared")


class TestFrozen:
    def train(self, **settings):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = zoo.resnet18(num_classes=3).train()
            before = weights(model)
            net = CAStream(**settings).attach(model)
        assert_same_bits(weights(model), before)
        assert model.training
        assert all(parameter.requires_grad for parameter in model.parameters())
        net.train()
        learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(learning, lr=0.1)
        start = weights(net)
        for _ in range(2):
            optimizer.zero_grad()
            loss, logits = net.method.loss(net, IMAGES, LABELS)
            torch.testing.assert_close(loss, F.cross_entropy(logits, LABELS))
            loss.backward()
            optimizer.step()
        end = weights(net)
        return net, {name for name in end if not torch.equal(start[name], end[name])}

    def test_only_the_token_and_the_projections_change(self):
        net, changed = self.train()
        blocks = {
            f"head.blocks.{n}.project.{part}" for n in range(5) for part in ("weight", "bias")
        }
        assert {"head.blocks.3.project.weight", "head.blocks.4.project.bias"} <= changed
        assert changed <= {"head.token"} | blocks
        # The first are small, behind all blocks of a new net.
        assert all(parameter.grad.abs().max() > 0 for parameter in net.head.parameters())
        assert net.training
        assert not any(module.training for module in net.classifier.modules())
        assert {n for n, p in net.named_parameters() if p.requires_grad} == {"head.token"} | blocks

    def test_frozen_weights_as_released_let_the_statistics_drift(self):
        net, changed = self.train(frozen="weights")
        drifted = {name for name in changed if name.startswith("classifier.")}
        assert drifted
        assert all("running" in name or "num_batches" in name for name in drifted)
        assert not any(p.requires_grad for p in net.classifier.parameters())

    def test_net_that_is_not_frozen_learns_as_a_whole(self):
        _, changed = self.train(frozen=False)
        assert {"classifier.conv1.weight", "classifier.fc.bias", "head.token"} <= changed

    def test_dropout_and_stochastic_depth_stay_off(self):
        model = zoo.efficientnet_b0(num_classes=3)
        net = CAStream().attach(model).train()
        assert torch.equal(net(IMAGES), net(IMAGES))

    def test_dropout_and_stochastic_depth_are_active_as_released(self):
        net = CAStream(frozen="weights").attach(zoo.efficientnet_b0(num_classes=3)).train()
        off = [module for module in net.classifier.modules() if not module.training]
        assert not off
        assert not torch.equal(net(IMAGES), net(IMAGES))


def test_label_smoothing_is_that_of_the_formula():
    """−(1 − s) log p_y − s mean_k log p_k."""
    model, data = Hidden(), TensorDataset(IMAGES[..., :16, :16], LABELS)
    same = {"epochs": 1, "batch_size": 4, "optimizer": {"name": "SGD", "lr": 0.5}}

    def smoothed(logits, labels):
        logs = logits.log_softmax(1)
        return -(0.7 * logs[range(len(labels)), labels] + 0.3 * logs.mean(1)).mean()

    plain, by_setting, by_formula = (
        weights(xcam.fit(model, data, "castream", **same, **more).head)
        for more in ({}, {"label_smoothing": 0.3}, {"criterion": smoothed})
    )
    for name, value in by_formula.items():
        torch.testing.assert_close(by_setting[name], value)
    assert any(not torch.equal(by_setting[name], value) for name, value in plain.items())


class TestNet:
    def net(self, **settings):
        net = CAStream(**settings).attach(Hidden().eval())
        net.fitted = True
        return net

    def test_fit_save_load_and_explain(self, tmp_path):
        model = Hidden()
        net = xcam.fit(model, TensorDataset(IMAGES[..., :16, :16], LABELS), "castream", epochs=2)
        assert_same_bits(weights(net.classifier), weights(model))
        xcam.save(net, tmp_path / "net.safetensors")
        again = xcam.load(tmp_path / "net.safetensors", Hidden())
        assert again.method == net.method
        images = pictures(size=16)
        assert torch.equal(xcam.explain(again, images).raw, xcam.explain(net, images).raw)
        assert torch.equal(again(images), net(images))

    def test_flags_are_those_of_the_map(self):
        assert CAStream.spec.normalized
        assert CAStream(map="scores").spec.signed
        assert not CAStream(map="scores").spec.normalized
        assert xcam.get_method("CA-Stream") is CAStream

    def test_attention_sums_to_one_and_knows_no_class(self):
        net, images = self.net(), pictures(size=16)
        maps = [xcam.explain(net, images, target).raw for target in (0, 2)]
        assert torch.equal(*maps)
        torch.testing.assert_close(maps[0].sum((1, 2)), torch.ones(2))

    @pytest.mark.parametrize("block", [9, -10])
    def test_block_that_the_stream_lacks_is_refused(self, block):
        with pytest.raises(ValueError, match=rf"has \d blocks, got block={block}; give one from 0"):
            xcam.explain(self.net(), pictures(size=16), block=block)

    def test_setting_of_another_stream_is_refused(self):
        with pytest.raises(ValueError, match="head of castream was made with heads=1, got heads=2"):
            xcam.explain(self.net(), pictures(size=16), method=CAStream(heads=2))
        for changed in ({"placement": "released"}, {"frozen": False}, {"frozen": "weights"}):
            with pytest.raises(ValueError, match=f"was made with {next(iter(changed))}="):
                xcam.explain(self.net(), pictures(size=16), **changed)
        assert xcam.explain(self.net(), pictures(size=16), placement="stages", frozen=True)

    @pytest.mark.parametrize(
        ("method", "count"),
        [("gradcam", 1), ("gradcam_plusplus", 1), ("layercam", 1), ("scorecam", 2)],
    )
    def test_cams_of_the_net_take_as_many_passes_as_of_its_classifier(self, method, count):
        net, images = self.net(), pictures(size=16)
        explained = xcam.explain(net, images, 1, method)
        assert explained.method.layer.startswith("classifier.")
        torch.testing.assert_close(explained.logits, net(images))
        passes = []
        handle = net.classifier.register_forward_hook(lambda *_: passes.append(1))
        xcam.explain(net, images, 1, method)
        handle.remove()
        bare = []
        handle = net.classifier.register_forward_hook(lambda *_: bare.append(1))
        xcam.explain(net.classifier, images, 1, method)
        handle.remove()
        assert len(passes) == len(bare) == count

    @pytest.mark.parametrize("method", CAMS)
    def test_every_cam_explains_the_net(self, method):
        net, images = self.net(), pictures(size=16)
        if method == "cam":  # the logits are not affine in the pooled features
            with pytest.raises(LayerError):
                xcam.explain(net, images, 1, method)
            return
        explanation = xcam.explain(net, images, 1, method)
        plain = xcam.explain(Written(net).eval(), images, 1, explanation.method)
        torch.testing.assert_close(explanation.logits, plain.logits)
        torch.testing.assert_close(explanation.raw, plain.raw, rtol=1e-4, atol=1e-6)
        reads = getattr(explanation.method, "base", explanation.method)  # a layer, or by its base
        assert reads.layer == "classifier.stage"

    def test_several_heads_have_their_mean_for_a_map(self):
        net, images = self.net(heads=2), pictures(size=16)
        heads = []
        block = net.head.blocks[-1]
        handle = block.register_forward_hook(lambda _m, _i, output: heads.append(output[0]))
        maps = xcam.explain(net, images).raw
        handle.remove()
        wanted = heads[-1].flatten(2).softmax(2).mean(1).reshape(maps.shape)
        torch.testing.assert_close(maps, wanted)
