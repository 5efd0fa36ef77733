"""LFI-CAM: the published arithmetic by hand, the networks it is put on, and that it trains."""

import math

import pytest
import torch
import torchvision
from torch import nn
from trained import run_head

import xcam
from xcam.core import find_headed
from xcam.errors import LayerError, NotFittedError
from xcam.methods import LFICAM
from xcam.methods.trainable.lficam import FeatureImportance
from xcam.models import Normalized
from xcam.models.cifar.densenet import CifarDenseNet
from xcam.models.cifar.resnet import CifarResNet
from xcam.models.cifar.resnext import CifarResNeXt
from xcam.models.cifar.wide_resnet import CifarWideResNet
from xcam.models.toy import GapNet, SmallCNN
from xcam.models.whitebox.simple_cnn import SimpleCNN

LOG_3 = math.log(3)


def pictures(count=2, size=16, channels=3):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(1))


def greys(count):
    return pictures(count, channels=1)


class Watched(nn.Module):
    """In FIN's place: gives the channels known scores, and remembers what it is shown.

    A channel's score is a number, or one for each position.
    """

    def __init__(self, *scores):
        super().__init__()
        given = torch.tensor(scores)
        self.scores, self.shown = given.reshape(len(given), *(given.shape[1:] or (1, 1))), None

    def forward(self, masked):
        self.shown = masked
        return self.scores.expand_as(masked)


def importance(*scores):
    module = FeatureImportance(len(scores), "every")
    module.fin = Watched(*scores)
    return module


class TestAttention:
    @pytest.mark.parametrize(
        "scores",
        [(LOG_3, 0.0), ([[LOG_3 - 5, LOG_3 + 1], [LOG_3 + 1, LOG_3 + 3]], [[9.0, -2.0], [-3, -4]])],
    )
    def test_attention_matches_a_hand_computed_example(self, scores):
        """Scores of log 3 and 0 in the mean.

        w = (3/4, 1/4), R = (3, 0, 9/4, 1), less its minimum and over its range of 3.
        """
        features = torch.tensor([[[4.0, 0.0], [3.0, 0.0]], [[0.0, 0.0], [0.0, 4.0]]])[None]
        attention = importance(*scores)(features, torch.ones(1, 1, 8, 8))
        assert torch.allclose(attention, torch.tensor([[[[1.0, 0.0], [0.75, 1 / 3]]]]))

    def test_weights_are_the_softmax_of_fins_means(self):
        """Flat channels look alike to FIN, however high they are, so that heights read w."""
        module = FeatureImportance(4, "every").eval().double()
        gray = greys(1).double()
        ones = torch.ones(1, 4, 5, 5, dtype=torch.float64)
        total = module(ones, gray)  # of a flat R, which is left as it is: Σ w_k
        assert torch.allclose(total, torch.ones_like(total), atol=1e-12)
        small = nn.functional.interpolate(gray, (5, 5), mode="bilinear")
        wanted = module.fin(small.expand(1, 4, 5, 5)).mean((2, 3)).softmax(1)[0]
        assert wanted.std() > 0
        for channel, weight in enumerate(wanted):
            raised = ones.clone()
            raised[:, channel] += 1
            found = module(raised, gray)  # Σ w_k + w of the channel
            assert torch.allclose(found, (1 + weight).expand_as(found), atol=1e-12)

    def test_negative_sums_are_cut(self):
        features = torch.tensor([[[[-4.0, 2.0], [0.0, 1.0]]]])
        attention = importance(0.0)(features, torch.ones(1, 1, 2, 2))
        assert attention.flatten().tolist() == [0, 1, 0, 0.5]

    def test_input_of_fin(self):
        """Each channel over its range times the small grey image; zeros stay zero."""
        features = torch.tensor(
            [
                [[1.0, 3.0], [2.0, 5.0]],  # its minimum is not zero
                [[-2.0, 0.0], [2.0, 1.0]],  # a zero inside of its range
                [[0.0, 0.0], [0.0, 0.0]],  # dead
                [[7.0, 7.0], [7.0, 7.0]],  # constant
            ]
        )[None]
        gray = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
        module = importance(0.0, 0.0, 0.0, 0.0)
        module(features, gray.repeat_interleave(2, 0).repeat_interleave(2, 1)[None, None])
        wanted = torch.tensor(
            [
                [[0.0, 0.5], [0.25, 1.0]],
                [[0.0, 0.0], [1.0, 0.75]],
                [[0.0, 0.0], [0.0, 0.0]],
                [[1.0, 1.0], [1.0, 1.0]],
            ]
        )
        assert torch.allclose(module.fin.shown[0], wanted * gray)

    def test_gray_image_is_resized_bilinearly(self):
        """Bilinear, with cells' centres apart by four pixels: the mean of the middle two of them.

        Rows and squared columns, from 32 to 8: 4i + 1.5, and ((4j + 1)² + (4j + 2)²) / 2.
        """
        steps, cells = torch.arange(32.0), torch.arange(8.0)
        module = importance(0.0)
        module(torch.full((1, 1, 8, 8), 7.0), (steps[:, None] + steps**2)[None, None])
        wanted = (4 * cells + 1.5)[:, None] + 16 * cells**2 + 12 * cells + 2.5
        assert torch.allclose(module.fin.shown[0, 0], wanted)

    def test_flat_sum_is_not_rescaled(self):
        flat = torch.full((1, 2, 3, 3), 2.5)
        assert torch.equal(importance(1.0, 2.0)(flat, greys(1)), flat[:, :1])

    def test_images_of_a_batch_do_not_mix(self):
        features, images = torch.rand(3, 4, 5, 5), greys(3)
        module = FeatureImportance(4, "every").eval()
        together = module(features, images)
        alone = torch.cat([module(features[i : i + 1], images[i : i + 1]) for i in range(3)])
        assert torch.allclose(together, alone, atol=1e-6)
        assert together.shape == (3, 1, 5, 5)
        assert torch.equal(together.amin((1, 2, 3)), torch.zeros(3))
        assert torch.equal(together.amax((1, 2, 3)), torch.ones(3))

    @pytest.mark.parametrize("relu", ["every", "alternate"])
    def test_layouts_of_fin(self, relu):
        plain, rectified = ["Conv2d", "BatchNorm2d"], ["Conv2d", "BatchNorm2d", "ReLU"]
        layers = [type(layer).__name__ for layer in FeatureImportance(3, relu).fin]
        first = rectified if relu == "every" else plain
        assert layers == [*first, *rectified, *first, *rectified]
        assert FeatureImportance(3, relu).fin[0].bias is None

    def test_weights_that_fin_starts_with(self):
        torch.manual_seed(0)
        drawn = [m.weight for m in FeatureImportance(64, "every").fin if isinstance(m, nn.Conv2d)]
        for weight in drawn:  # 3x3, to 64 channels
            assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.03)
        assert len(drawn) == 4

    @pytest.mark.parametrize(
        ("channels", "size"), [(256, 2_361_344), (512, 9_441_280), (2048, 151_011_328)]
    )
    def test_parameters_of_fin(self, channels, size):
        with torch.device("meta"):
            module = FeatureImportance(channels, "every")
        assert sum(parameter.numel() for parameter in module.parameters()) == size

    @pytest.mark.parametrize("value", [0.0, 2.0, -1.0])
    def test_gradients_of_channels_without_range(self, value):
        """A dead, a constant and a negative channel beside a live one, and nothing but them."""
        for channels in (1, 2):
            features = torch.rand(1, 2, 4, 4)
            features[:, :channels] = value
            features.requires_grad_()
            module = FeatureImportance(2, "alternate").train()
            loss = (module(features, greys(1)) * torch.rand(4, 4)).sum()
            wanted = [features, *module.parameters()]
            for gradient in torch.autograd.grad(loss, wanted):
                assert gradient.isfinite().all()

    @pytest.mark.parametrize(
        ("dtype", "scales", "least"),
        [(torch.float32, (1e-40, 3e-38, 1e-37, 1e-20), 1e-18), (torch.float64, (3e-308,), 1e-153)],
    )
    def test_gradients_of_channels_of_the_smallest_range(self, dtype, scales, least):
        """Their squares, which decide about a step, are finite too; a wider range is stretched."""
        noise = torch.rand(2, 3, 4, 4, dtype=dtype, generator=torch.Generator().manual_seed(1))
        module = FeatureImportance(3, "every").to(dtype).train()
        for scale in (*scales, least):
            features = (noise * scale).requires_grad_()
            attention = module(features, greys(2).to(dtype))
            loss = (attention * torch.rand(4, 4)).sum()
            for gradient in torch.autograd.grad(loss, [features, *module.parameters()]):
                assert gradient.square().sum().isfinite()
            assert (attention.amax() == 1) == (scale == least)

    def test_gradients_reach_features_and_weights(self):
        features = torch.rand(2, 3, 4, 4, requires_grad=True)
        module = FeatureImportance(3, "every").train()
        loss = (module(features, greys(2)) * torch.rand(4, 4)).sum()
        gradients = torch.autograd.grad(loss, [features, module.fin[0].weight])
        assert all(gradient.abs().sum() > 0 for gradient in gradients)

    def test_half_precision_is_summed_in_full(self):
        """A softmax over many channels needs the digits."""
        module = FeatureImportance(64, "every").eval()
        features, images = torch.rand(1, 64, 4, 4).bfloat16(), greys(1).bfloat16()
        found = module.bfloat16()(features, images)
        wanted = module.float()(features.float(), images.float())
        assert found.dtype == torch.float32
        assert (found - wanted).abs().max() < 0.05


class TestNet:
    def test_classifier_reads_the_attended_features(self):
        net = GapNet()
        attached = LFICAM(layer="features").attach(net)
        images = pictures()
        with torch.no_grad():
            logits, attention = run_head(attached, images)
            features = net.features(images)
            wanted = net.fc((features * (1 + attention)).mean((2, 3)))
            assert torch.allclose(logits, wanted, atol=1e-6)
            assert torch.equal(attached.classifier(images), net(images))

    def test_head_gets_normalized_images(self):
        """Zero where the mean is: FIN is shown nothing."""
        attached = LFICAM().attach(Normalized(GapNet(), (0.5,), (0.25,)))
        head = find_headed(attached).head
        head.fin = Watched(*([0.0] * 12))
        attached(torch.full((1, 3, 16, 16), 0.5))
        assert not head.fin.shown.any()
        attached(torch.full((1, 3, 16, 16), 1.0))
        assert head.fin.shown.max() == 2

    def test_gray_is_the_mean_of_the_normalized_channels(self):
        """Also where the backbone goes on to change the images in place."""

        class InPlace(GapNet):
            def forward(self, images):
                return super().forward(images.mul_(0))

        head = LFICAM().attach(InPlace())
        fin = head.head.fin = Watched(*([0.0] * 12))
        images = torch.zeros(1, 3, 16, 16)
        images[:, 0] = 6
        head(images)
        assert fin.shown.max() == 2

    def test_loss_is_the_cross_entropy(self):
        attached = LFICAM().attach(GapNet())
        images, labels = pictures(), torch.tensor([1, 3])
        probabilities = attached(images).softmax(1)
        wanted = -(probabilities[0, 1].log() + probabilities[1, 3].log()) / 2
        assert torch.allclose(LFICAM().loss(attached, images, labels)[0], wanted)

    def test_map_is_the_attention_for_any_target(self):
        attached = LFICAM().attach(GapNet())
        attached.fitted = True
        images = pictures()
        found = [xcam.explain(attached, images, target, "lficam") for target in (0, 3, None)]
        with torch.no_grad():
            _, attention = run_head(attached, images)
        for explanation in found:
            assert torch.allclose(explanation.raw, attention[:, 0], atol=1e-6)
            assert explanation.maps.shape == (2, 16, 16)
        assert found[0].method == LFICAM(layer="features", fin_relu="every")

    # The classifier, the layer that its head reads, and its channels.
    NETS = (
        (lambda: CifarResNet(depth=110), "stage3", 256),
        (lambda: CifarResNet(depth=20), "stage3", 64),
        (lambda: CifarDenseNet(depth=40), "stage3", 132),
        (lambda: CifarResNeXt(), "stage3", 1024),
        (lambda: CifarWideResNet(depth=10), "stage3", 640),
        (lambda: SimpleCNN(), "features.10", 128),
        (lambda: torchvision.models.resnet18(), "layer4", 512),
        (lambda: torchvision.models.resnet50(), "layer4", 2048),
        (lambda: torchvision.models.densenet121(), "features.denseblock4", 1024),
        (lambda: torchvision.models.vgg11(), "features.19", 512),
        (lambda: torchvision.models.convnext_tiny(), "features.7", 768),
        (lambda: torchvision.models.mobilenet_v3_small(), "features.12", 576),
    )

    @pytest.mark.parametrize(("make", "layer", "channels"), NETS)
    def test_where_it_is_put(self, make, layer, channels):
        with torch.device("meta"):
            net = make()
            size = 32 if hasattr(net, "stage3") or isinstance(net, SimpleCNN) else 224
            attached = LFICAM().attach(Normalized(net, (0.5,), (0.5,), input_size=size))
        assert attached.method == LFICAM(layer=layer, fin_relu="every")
        assert find_headed(attached).head.fin[0].in_channels == channels
        assert {f"model.classifier.{name}" for name in net.state_dict()} < set(
            attached.state_dict()
        )

    def test_densenet_is_split_before_its_last_norm(self):
        """F' goes through the batch norm and ReLU, and F is signed."""
        torch.manual_seed(0)
        net = CifarDenseNet(depth=10, growth=4).eval()
        attached = LFICAM().attach(Normalized(net, (0.5,), (0.5,), input_size=32))
        images = pictures(size=32)
        with torch.no_grad():
            logits, attention = run_head(attached, images)
            features = net.stage3(net.stage2(net.stage1(net.stem((images - 0.5) / 0.5))))
            pooled = net.pool(net.norm(features * (1 + attention)))
            assert torch.allclose(logits, net.fc(pooled.flatten(1)), atol=1e-5)
            assert features.min() < 0

    @pytest.mark.parametrize(("stride", "side"), [(1, 14), (2, 7), (None, 7)])
    def test_stem(self, stride, side):
        with torch.device("meta"):
            net = torchvision.models.resnet18()
            attached = LFICAM(stem_stride=stride).attach(net)
            _, attention = run_head(attached, torch.zeros(1, 3, 224, 224))
        assert attention.shape == (1, 1, side, side)
        assert net.conv1.stride == (2, 2)

    def test_resnet18_keeps_its_layer_names_and_takes_any_size(self):
        torch.manual_seed(0)
        model = xcam.models.load("torchvision:resnet18", num_classes=4)
        attached = LFICAM(layer="model.layer3").attach(model)
        attached.fitted = True
        assert attached.method.layer == "layer3"
        e = xcam.explain(attached, pictures(1, size=64), method=None)
        assert e.raw.shape == (1, 4, 4)
        e = xcam.explain(attached, pictures(1, size=64), 0, "gradcam")
        assert e.method.layer == "model.classifier.layer4"

    def test_checkpoint_restores_the_whole_net(self, tmp_path):
        torch.manual_seed(0)
        model = xcam.models.load("xcam:cifar_resnet", depth=8)
        attached = LFICAM(fin_relu="every").attach(model)
        attached.fitted = True
        xcam.save(attached, tmp_path / "net.safetensors")
        loaded = xcam.load(tmp_path / "net.safetensors")
        images = pictures(size=32)
        assert torch.equal(
            xcam.explain(loaded, images, method=None).raw,
            xcam.explain(attached, images, method=None).raw,
        )

    @pytest.mark.parametrize(
        ("method", "net", "message"),
        [
            (LFICAM(stem_stride=1), GapNet(), "called 'conv1'.*GapNet has none"),
            (LFICAM(layer="fc"), GapNet(), r"layer 'fc' has an output of shape \(1, 5\)"),
            (LFICAM(layer="featurez"), GapNet(), "no layer 'featurez'; the nearest are features"),
            (LFICAM(), nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), "has no convolution"),
            (LFICAM(), SimpleCNN(), r"does not run on a blank image.*Normalized\(model, mean"),
        ],
    )
    def test_refusals(self, method, net, message):
        with pytest.raises((ValueError, KeyError), match=message):
            method.attach(net)

    def test_settings_out_of_their_range_are_refused(self):
        with pytest.raises(ValueError, match="fin_relu must be 'every', 'alternate' or None"):
            LFICAM(fin_relu="some")
        with pytest.raises(ValueError, match="stem_stride must be 1, 2 or None, got 3"):
            LFICAM(stem_stride=3)

    def test_layer_called_twice_is_refused(self):
        net = SmallCNN()
        net.features = nn.Sequential(
            nn.Conv2d(3, 16, 3), relu := nn.ReLU(), nn.Conv2d(16, 16, 3), relu
        )
        with pytest.raises(LayerError, match=r"'features\.1' is called 2 times.*as 'features'"):
            LFICAM(layer="features.1").attach(net)

    def test_maps_need_the_head(self):
        with pytest.raises(NotFittedError, match="lficam needs a model with its head"):
            xcam.explain(GapNet(), pictures(), method="lficam")

    def test_another_head_than_the_nets_is_refused(self):
        attached = LFICAM().attach(GapNet())
        attached.fitted = True
        with pytest.raises(
            ValueError, match="made with fin_relu='every', got fin_relu='alternate'"
        ):
            xcam.explain(attached, pictures(), method="lficam", fin_relu="alternate")


def spots(count, seed):
    """Grey noise with a bright square, in the upper half for class 0, in the lower for class 1."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.rand(count, 1, 24, 24, generator=generator)
    labels = torch.arange(count) % 2
    for image, label in zip(images, labels, strict=True):
        row, column = torch.randint(0, 9, (2,), generator=generator).tolist()
        image[0, row + 12 * int(label) : row + 12 * int(label) + 4, 2 * column : 2 * column + 4] = 1
    return images, labels


class Striped(nn.Module):
    """Two halves pooled apart, so that the place tells the class."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        )  # fmt: skip
        self.fc = nn.Linear(32, 2)

    def forward(self, images):
        return self.fc(nn.functional.adaptive_avg_pool2d(self.features(images), (2, 1)).flatten(1))


def test_training_learns_the_classes_and_where_to_look():
    torch.manual_seed(0)
    net = Normalized(Striped(), (0.2,), (0.3,), input_size=24)
    data = torch.utils.data.TensorDataset(*spots(128, 1))
    trained = xcam.fit(
        net,
        data,
        "lficam",
        epochs=8,
        batch_size=16,
        optimizer={"name": "SGD", "lr": 0.05, "momentum": 0.9},
    )
    images, labels = spots(64, 2)
    explanation = xcam.explain(trained, images, method=None)
    assert (explanation.logits.argmax(1) == labels).float().mean() > 0.95
    bright = images[:, 0] == 1
    maps = explanation.maps
    inside, outside = maps[bright].mean(), maps[~bright].mean()
    assert inside > 4 * outside  # 1.6 to 1.7 times with heads that are not trained
    assert trained.method == LFICAM(layer="features", fin_relu="every")
