"""Nets and layers that a head cannot be put around, and what the sentences advise."""

import pytest
import torch
import torchvision
from nets import pictures
from torch import nn
from torch.utils.data import TensorDataset

import xcam
from xcam.errors import LayerError, ModelOutputError
from xcam.methods import ABN, CALM, LFICAM, LCAMFm
from xcam.methods.trainable.backbone import Backbone
from xcam.models import Normalized
from xcam.models.cifar.resnet import CifarResNet
from xcam.models.toy import GapNet

HEADS = pytest.mark.parametrize("head", ["lficam", "abn", "lcam_fm", "lcam_img", "calm"])
LAYER = pytest.mark.parametrize("method", [LFICAM, LCAMFm, CALM])
zoo = torchvision.models


class Staged(nn.Module):
    """Its images are changed first; a second stem reads them behind the first one."""

    def __init__(self, change=None, channels=3):
        super().__init__()
        self.unused = nn.Conv2d(3, 1, 1)  # says how many channels the images have
        self.change = change or nn.Identity()
        self.stem, self.second = nn.Conv2d(channels, 4, 3, 1, 1), nn.Conv2d(channels, 4, 3, 1, 1)
        self.stage = nn.Sequential(nn.Conv2d(4, 5, 3, 2, 1), nn.ReLU())
        self.fc = nn.Linear(5, 3)

    def forward(self, images):
        changed = self.change(images)
        return self.fc(self.stage(self.stem(changed) + self.second(changed)).mean((2, 3)))


class Functional(GapNet):
    """It normalises by itself, without a module."""

    def forward(self, images):
        return super().forward((images - 0.5) / 0.2)


class TestStagesThatReadTheImage:
    @pytest.mark.parametrize(
        ("net", "stage", "other"),
        [
            (CifarResNet(depth=8), "stem", "stage3"),
            (CifarResNet(depth=8), "stem.0", "stage3"),
            (GapNet(), "features", "features.2"),
            (Functional(), "features", "features.2"),
            (Functional(), "features.0", "features.2"),
            (Staged(nn.BatchNorm2d(3)), "stem", "stage"),
            (Staged(nn.Upsample(scale_factor=2)), "stem", "stage"),
            (Staged(), "second", "stage"),
            (nn.Sequential(nn.BatchNorm2d(3), GapNet()), "1", "1.features.2"),
        ],
    )
    def test_stage_that_reads_the_image_is_refused(self, net, stage, other):
        sentence = f"layer '{stage}' reads the image, and .* choose a later one, such as '{other}'"
        with pytest.raises(LayerError, match=sentence):
            ABN(stage=stage).attach(Normalized(net, (0.5,), (0.5,), input_size=32))
        assert ABN(stage=other).attach(net).method.stage == other

    def test_net_with_no_other_stage_is_refused(self):
        net = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        with pytest.raises(LayerError, match=r"'0' reads the image.*; choose a later one$"):
            ABN(stage="0").attach(net)

    def test_default_stage_does_not_read_the_image(self):
        assert ABN().attach(Functional()).method.stage == "features.2"
        assert Backbone(Functional()).last_stage() == "features.2"

    def test_stage_without_convolutions_may_make_features(self):
        net = Staged(nn.PixelUnshuffle(2), channels=12)
        assert ABN(stage="stem").attach(net).method.stage == "stem"

    def test_heads_may_read_what_such_a_stage_gives(self):
        assert LFICAM(layer="stem").attach(CifarResNet(depth=8)).method.layer == "stem"


@HEADS
@pytest.mark.parametrize(
    ("net", "stage", "layer"),
    [(zoo.resnet18, "layer3", "layer3"), (zoo.resnet50, "layer4.0.conv1", "layer4.0.bn1")],
)
def test_layer_that_gives_one_cell_is_left_out(head, net, stage, layer):
    """The last stage of a ResNet, of images of 32 pixels; its docstrings say what comes instead."""
    with torch.device("meta"):
        method = xcam.get_method(head)().attach(net(), torch.zeros(1, 3, 32, 32)).method
    place = "stage" if head == "abn" else "layer"
    chosen = {"stage": stage, "layer": layer}[place]
    assert method.parameters()[place] == chosen
    description = (LCAMFm if head == "lcam_img" else type(method)).__doc__
    assert f"`{chosen}` of {net.__name__}" in " ".join(description.split())


def vit():
    net = zoo.VisionTransformer(32, 16, 1, 2, 8, 16, num_classes=3)
    return Normalized(net, (0.5,), (0.5,), input_size=32)


def swin():
    net = zoo.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [2, 2], num_classes=3)
    return Normalized(net, (0.5,), (0.5,), input_size=16)


TOKENS = pytest.mark.parametrize(
    ("net", "layer", "shape"),
    [
        (vit, None, r"\(1, 5, 8\)"),
        (vit, "encoder.ln", r"\(1, 5, 8\)"),
        (swin, "features", r"\(1, 2, 2, 16\)"),
        (swin, "norm", r"\(1, 2, 2, 16\)"),
    ],
)


class TestTransformers:
    @TOKENS
    def test_lficam_refuses_tokens(self, net, layer, shape):
        sentence = (
            rf"needs a feature map \(B, C, h, w\) of .* has an output of shape {shape} .*; "
            "choose a convolutional net, or a layer that gives such a map"
        )
        with pytest.raises(LayerError, match=sentence):
            LFICAM(layer=layer).attach(net())

    @TOKENS
    @pytest.mark.parametrize("method", [LCAMFm, CALM])
    def test_heads_of_one_convolution_take_tokens(self, method, net, layer, shape):
        attached = method(layer=layer).attach(net())
        attached.fitted = True
        side = attached.input_size[0]
        assert xcam.explain(attached, pictures(size=side)).raw.shape == (2, 2, 2)

    @LAYER
    @pytest.mark.parametrize(("net", "layer"), [(vit, "conv_proj"), (swin, "permute")])
    def test_transformer_layer_that_gives_a_feature_map_is_accepted(self, method, net, layer):
        attached = method(layer=layer).attach(net())
        attached.fitted = True
        side = attached.input_size[0]
        assert xcam.explain(attached, pictures(size=side)).maps.shape == (2, side, side)

    @pytest.mark.parametrize("net", [vit, swin])
    def test_stages(self, net):
        sentence = r"no stage of .*Transformer is found .* and reads a feature map \(B, C, h, w\); "
        with pytest.raises(LayerError, match=f"{sentence}give a convolutional net, or name the"):
            ABN().attach(net())

    def test_vector_output_is_refused_without_mention_of_transformers(self):
        with pytest.raises(LayerError, match="choose another layer, before pooling and flattening"):
            LFICAM(layer="fc").attach(GapNet())


class Unusual(GapNet):
    """What it returns is made of its logits."""

    def __init__(self, made, only_in_training=False):
        super().__init__()
        self.made, self.only_in_training = made, only_in_training

    def forward(self, images):
        logits = super().forward(images)
        return self.made(logits) if self.training or not self.only_in_training else logits


class TestOutputs:
    @pytest.mark.parametrize("head", ["lficam", "abn"])
    def test_auxiliary_classifiers(self, head):
        """GoogLeNet has them in training alone."""
        data = TensorDataset(pictures(2, size=64), torch.tensor([0, 1]))
        net = xcam.models.load("torchvision:googlenet", num_classes=3, aux_logits=True)
        sentence = (
            r"one floating-point \(2, K\) tensor of class scores, also in training, and GoogLeNet "
            r"returns \(2, 3\), \(2, 3\), \(2, 3\); train it without auxiliary classifiers, "
            r"xcam\.models\.load\(…, aux_logits=False\)"
        )
        with pytest.raises(ModelOutputError, match=sentence):
            xcam.fit(net, data, head, epochs=1, batch_size=2)
        net = xcam.models.load("torchvision:googlenet", num_classes=3, aux_logits=False)
        assert xcam.fit(net, data, head, epochs=1, batch_size=2).fitted

    @HEADS
    @pytest.mark.parametrize(
        ("made", "got"),
        [
            (lambda z: (z, z), r"\(1, 5\), \(1, 5\); train it without"),
            (lambda z: {"out": z[:, None]}, r"\(1, 1, 5\); wrap it in a module that returns"),
            (lambda z: z[:, None], r"\(1, 1, 5\); wrap it in a module that returns the scores"),
            (lambda z: [z[0], "five"], r"\(5,\), str; train it without"),
            (lambda z: (), "nothing; wrap it"),
            (lambda z: None, "NoneType; wrap it"),
        ],
    )
    def test_no_logits(self, head, made, got):
        with pytest.raises(ModelOutputError, match=f"a head needs .* and Unusual returns {got}"):
            xcam.get_method(head)().attach(Unusual(made).eval())

    @pytest.mark.parametrize("head", ["lficam", "abn"])
    def test_one_tensor_among_others_is_the_logits(self, head):
        net = xcam.get_method(head)().attach(Unusual(lambda z: {"z": z, "n": 1}, True)).train()
        assert net.method.loss(net, pictures(size=16), torch.tensor([0, 1]))[0].isfinite()
