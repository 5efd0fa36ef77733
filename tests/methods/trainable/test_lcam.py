"""L-CAM: the published arithmetic by hand, what is frozen, and that it trains."""

import math

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import xcam
from xcam.core import find_headed
from xcam.data import planted_cues
from xcam.errors import LayerError, NotFittedError
from xcam.methods import LCAMFm, LCAMImg
from xcam.methods.trainable.lcam_masks import area, variation
from xcam.models import Normalized
from xcam.models.toy import GapNet, SmallCNN

COLOURS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
BOTH = pytest.mark.parametrize("method", [LCAMFm, LCAMImg])
LABELS = torch.tensor([1, 3, 1])
WEIGHTS = ("tv_weight", "area_weight", "ce_weight")


def pictures(count=3, size=16):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def attached(method, net=None, seed=0):
    torch.manual_seed(seed)
    return method.attach(GapNet() if net is None else net)


def fitted(method, net=None):
    net = attached(method, net)
    net.fitted = True
    return net


def read_maps(net, images):
    """c of every class, (B, K, h, w), of a net whose backbone is a GapNet."""
    headed = find_headed(net)
    return headed.head(headed.classifier.features(images))


class TestTerms:
    MASK = torch.tensor([[1.0, 2.0], [3.0, 4.0]])

    def test_variation(self):
        """(2² + 2²) + (1² + 1²) + 0.3 (1 + 4 + 9 + 16 + 1 + 9 + 4 + 16) = 28, halved."""
        assert variation(self.MASK[None, None]) == pytest.approx(14)

    def test_variation_is_summed_over_maps_and_meant_over_images(self):
        two = torch.stack([self.MASK, 2 * self.MASK])
        assert variation(two[:, None]) == pytest.approx((14 + 4 * 14) / 2)
        assert variation(two[None]) == pytest.approx(14 + 4 * 14)

    def test_flat_mask_has_variation_only_at_its_border(self):
        assert variation(torch.ones(1, 1, 3, 5)) == pytest.approx(0.3 * (5 + 5 + 3 + 3) / 2)

    def test_area(self):
        assert area(torch.zeros(2, 1, 3, 3), 0.3) == pytest.approx(0.1023, abs=5e-5)
        halves = torch.tensor([0.0, 1.0]).expand(4, 1, 2, 2)
        assert area(halves, 0.3) == pytest.approx((0.0005**0.3 + 1.0005**0.3) / 2)
        assert area(halves, 1.0) == pytest.approx(0.5005)

    def test_area_has_a_finite_slope_at_zero(self):
        masks = torch.zeros(1, 1, 2, 2, requires_grad=True)
        (slope,) = torch.autograd.grad(area(masks, 0.3), masks)
        assert slope.flatten().tolist() == pytest.approx([0.3 * 0.0005**-0.7 / 4] * 4)


class TestLoss:
    def test_loss_of_lcam_fm_matches_its_formula(self):
        """The classifier goes on with A F; the terms are of A."""
        method, images = LCAMFm(labels="given", mask_reg="own_label"), pictures()
        net = attached(method)
        features = net.classifier.features(images)
        mask = read_maps(net, images).sigmoid()[torch.arange(3), LABELS][:, None]
        logits = net.classifier.fc((mask * features).mean((2, 3)))
        wanted = (
            0.01 * variation(mask)
            + 2 * (mask + 0.0005).pow(0.3).mean()
            + 1.5 * F.cross_entropy(logits, LABELS)
        )
        assert torch.allclose(method.loss(net, images, LABELS)[0], wanted)

    def test_loss_of_lcam_img_matches_its_formula(self):
        """The classifier sees the image again, black where A, made as large as it, is 0."""
        method = LCAMImg(layer="features", labels="given", mask_reg="own_label")
        images = pictures()
        backbone = SmallCNN()
        net = attached(method, Normalized(backbone, (0.5,), (0.25,), input_size=16))
        c = net.head(backbone.features((images - 0.5) / 0.25))
        mask = c.sigmoid()[torch.arange(3), LABELS][:, None]
        large = F.interpolate(mask, (16, 16), mode="bilinear", align_corners=False)
        assert mask.shape[2:] != (16, 16)
        logits = backbone((large * images - 0.5) / 0.25)
        wanted = (
            0.01 * variation(mask)
            + 2 * (mask + 0.0005).pow(0.3).mean()
            + 1.5 * F.cross_entropy(logits, LABELS)
        )
        assert torch.allclose(method.loss(net, images, LABELS)[0], wanted)

    @BOTH
    def test_regularized_maps(self, method):
        """Those of all labels of the batch in each image, or the image's own; the same for one."""
        images, terms = pictures(), {"labels": "given", "ce_weight": 0.0}
        own, batch = (method(mask_reg=reg, **terms) for reg in ("own_label", "batch_labels"))
        net = attached(own)
        masks = read_maps(net, images).sigmoid()
        wanted = 0.01 * variation(masks[:, LABELS]) + 2 * area(masks[:, LABELS], 0.3)
        assert torch.allclose(batch.loss(net, images, LABELS)[0], wanted)
        assert not torch.allclose(own.loss(net, images, LABELS)[0], wanted)
        assert torch.equal(
            method(**terms).loss(net, images, LABELS)[0], batch.loss(net, images, LABELS)[0]
        )
        alone = [one.loss(net, images[:1], LABELS[:1])[0] for one in (own, batch)]
        assert torch.equal(*alone)

    @BOTH
    def test_own_label_loss_is_the_same_over_parts_of_a_batch(self, method):
        """V of the batch's labels counts less where a step has parts, own_label's does not."""
        images, terms = pictures(), {"labels": "given", "area_weight": 0.0, "ce_weight": 0.0}
        net = attached(method())
        for mask_reg in ("own_label", "batch_labels"):
            one = method(mask_reg=mask_reg, **terms)
            parts = [one.loss(net, images[k : k + 1], LABELS[k : k + 1])[0] for k in range(3)]
            shared, whole = torch.stack(parts).mean(), one.loss(net, images, LABELS)[0]
            assert torch.allclose(shared, whole) == (mask_reg == "own_label")

    @BOTH
    def test_weights(self, method):
        """Each counts what it is of; without the regularisers the cross-entropy is left."""
        images, net = pictures(), attached(method())

        def loss(**weights):
            zeros = dict.fromkeys(WEIGHTS, 0.0)
            chosen = method(labels="given", mask_reg="own_label", **zeros | weights)
            return chosen.loss(net, images, LABELS)[0].item()

        mask = read_maps(net, images).sigmoid()[torch.arange(3), LABELS][:, None]
        assert loss(tv_weight=1.0) == pytest.approx(variation(mask).item())
        assert loss(area_weight=1.0, area_power=1.0) == pytest.approx(mask.mean().item() + 0.0005)
        assert loss(ce_weight=1.0) == pytest.approx(loss(ce_weight=2.0) / 2)
        whole = loss(**{name: getattr(method(), name) for name in WEIGHTS})
        parts = loss(tv_weight=0.01) + loss(area_weight=2.0) + loss(ce_weight=1.5)
        assert whole == pytest.approx(parts)

    @BOTH
    def test_labels(self, method):
        """The classifier's, whatever the data say; or those of the data."""
        images, net = pictures(), attached(method())
        predicted = net(images).argmax(1)
        assert (predicted != LABELS).any()
        found = method().loss(net, images, LABELS)[0]
        assert torch.equal(found, method(labels="given").loss(net, images, predicted)[0])
        assert not torch.equal(found, method(labels="given").loss(net, images, LABELS)[0])

    @BOTH
    def test_mixed_labels(self, method):
        shares = torch.full((3, 5), 0.2)
        assert method().loss(attached(method()), pictures(), shares)[0].isfinite()
        with pytest.raises(ValueError, match=r"one class an image, got labels of shape \(3, 5\)"):
            method(labels="given").loss(attached(method()), pictures(), shares)[0]

    @pytest.mark.parametrize(
        ("method", "passes"),
        [
            (LCAMFm(labels="given"), 1),
            (LCAMFm(), 2),
            (LCAMImg(labels="given"), 2),
            (LCAMImg(), 2),
        ],
    )
    def test_passes(self, method, passes):
        net, seen = attached(method), []
        net.classifier.fc.register_forward_hook(lambda *_: seen.append(1))
        method.loss(net, pictures(), LABELS)[0]
        assert len(seen) == passes

    @BOTH
    def test_inplace_relu_behind_the_layer_does_not_change_the_features(self, method):
        """Maps are made of the features as the layer gives them, in training as later."""
        net = attached(method(layer="0"), nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        ))  # fmt: skip
        net.fitted = True
        signed = net.classifier[0](pictures())
        assert (signed < 0).any()
        assert torch.equal(method()._read(net, pictures())[1], signed)
        found = xcam.explain(net, pictures(), 2, method=None).raw
        assert torch.allclose(found, net.head(signed)[:, 2], atol=1e-6)
        method().loss(net, pictures(), torch.tensor([0, 1, 2]))[0].backward()


class Regular(nn.Module):
    """A classifier with batch norm and dropout, which act in training mode."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.fc = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 4))

    def forward(self, images):
        return self.fc(self.features(images).mean((2, 3)))


class TestFrozen:
    @BOTH
    def test_bit_for_bit(self, method):
        """Weights, statistics and dropout of the classifier, in training mode and after it."""
        torch.manual_seed(0)
        net = Normalized(Regular().train(), (0.5,), (0.5,), input_size=16)
        before = {name: value.clone() for name, value in net.state_dict().items()}
        images = pictures(24)
        trained = xcam.fit(
            net,
            TensorDataset(images, torch.arange(24) % 4),
            method(),
            epochs=2,
            batch_size=8,
            optimizer={"name": "SGD", "lr": 0.1, "weight_decay": 0.1},
        )
        kept = trained.model.classifier.state_dict()
        for name, value in before.items():
            assert torch.equal(kept[name.removeprefix("model.")], value)
        fresh = attached(method(), net)
        assert not torch.equal(trained.model.head.weight, fresh.model.head.weight)
        trained.train()
        assert trained.model.head.training
        assert not any(module.training for module in trained.model.classifier.modules())
        assert torch.equal(trained(images), net.eval()(images))

    @BOTH
    def test_only_the_attention_has_gradients(self, method):
        net = attached(method()).train()
        method().loss(net, pictures(), LABELS)[0].backward()
        reached = {name for name, value in net.named_parameters() if value.grad is not None}
        assert reached == {"head.weight", "head.bias"}
        assert all(net.get_parameter(name).grad.any() for name in reached)

    @BOTH
    def test_last_of_equally_accurate_epochs_is_returned(self, method, tmp_path):
        """The classifier's accuracy tells none apart, and the head is trained on."""
        data = TensorDataset(pictures(8), torch.arange(8) % 5)
        net = xcam.fit(GapNet(), data, method(), epochs=3, validation=data, out=tmp_path)
        last = xcam.load(tmp_path / "last.safetensors", model=GapNet())
        assert torch.equal(net.head.weight, last.head.weight)


class TestMaps:
    @BOTH
    def test_maps_are_the_channels_of_the_target_classes(self, method):
        net, images = fitted(method()), pictures()
        c = read_maps(net, images)
        for classes in ([4, 0, 2], [1, 1, 1]):
            found = xcam.explain(net, images, classes, method=None)
            assert torch.allclose(found.raw, c[torch.arange(3), classes], atol=1e-6)
        name = method.spec.name
        found = xcam.explain(net, images, classes, name, sigmoid=True)
        assert torch.allclose(found.raw, c.sigmoid()[:, 1], atol=1e-6)
        assert torch.equal(net(images), GapNet()(images))

    @BOTH
    def test_map_of_a_callable_target_weights_channels_by_its_slopes(self, method):
        """One class against another: the slopes of the score in the logits are 1 and -2."""
        net, images = fitted(method()), pictures()
        c = read_maps(net, images)
        found = xcam.explain(net, images, lambda z, rows: z[:, 0] - 2 * z[:, 3], method=None)
        assert torch.allclose(found.raw, c[:, 0] - 2 * c[:, 3], atol=1e-5)
        with torch.inference_mode():
            again = xcam.explain(net, images, lambda z, rows: z[:, 0] - 2 * z[:, 3], method=None)
        assert torch.allclose(again.raw, found.raw, atol=1e-6)
        with pytest.raises(ValueError, match="does not depend on the logits through diff"):
            xcam.explain(net, images, lambda z, rows: z.detach()[:, 0], method=None)

    # The net, the layer that its maps are made of, channels, classes, and side of the maps.
    NETS = (
        (lambda: torchvision.models.vgg16(), None, "features.29", 512, 14, 513_000),
        (lambda: torchvision.models.vgg16(), "features.30", "features.30", 512, 7, 513_000),
        (lambda: torchvision.models.resnet50(), None, "layer4", 2048, 7, 2_049_000),
        (lambda: torchvision.models.resnet18(num_classes=7), None, "layer4", 512, 7, 7 * 513),
        (lambda: torchvision.models.densenet121(), None, "features", 1024, 7, 1_025_000),
    )

    @pytest.mark.parametrize(("make", "layer", "used", "channels", "side", "size"), NETS)
    def test_where_it_is_put(self, make, layer, used, channels, side, size):
        with torch.device("meta"):
            net = attached(LCAMImg(layer=layer), Normalized(make(), (0.5,), (0.5,)))
            features = LCAMImg()._read(net, torch.zeros(1, 3, 224, 224))[1]
        assert net.method == LCAMImg(layer=used)
        assert features.shape == (1, channels, side, side)
        trained = [value for value in net.parameters() if value.requires_grad]
        assert sum(value.numel() for value in trained) == size
        assert {name for name, value in net.named_parameters() if value.requires_grad} == {
            "model.head.weight",
            "model.head.bias",
        }

    @pytest.mark.parametrize("size", [64, 96])
    def test_any_size_of_image(self, size):
        torch.manual_seed(0)
        model = xcam.models.load("torchvision:resnet18", num_classes=4)
        net = fitted(LCAMFm(layer="model.layer3"), model)
        found = xcam.explain(net, pictures(1, size), method=None)
        assert found.raw.shape == (1, size // 16, size // 16)
        assert found.maps.shape == (1, size, size)
        assert torch.equal(net.eval()(pictures(1, size)), model.eval()(pictures(1, size)))

    def test_images_that_leave_no_map_are_refused(self):
        torch.manual_seed(0)
        model = xcam.models.load("torchvision:resnet18", num_classes=4)
        with pytest.raises(LayerError, match=r"shape \(1, 512, 1, 1\) is not a map of"):
            xcam.explain(fitted(LCAMFm(), model), pictures(1, 32), method=None)

    @BOTH
    def test_zeros_start_every_map_at_one_half(self, method):
        net, drawn_as_ever = (attached(method(zero_init=zero)) for zero in (True, False))
        assert not read_maps(net, pictures()).any()
        net.fitted = True
        assert (xcam.explain(net, pictures(), 1, sigmoid=True).raw == 0.5).all()
        assert read_maps(drawn_as_ever, pictures()).any()

    def test_checkpoint_restores_the_whole_net(self, tmp_path):
        torch.manual_seed(0)
        model = xcam.models.load("xcam:cifar_resnet", depth=8)
        net = fitted(LCAMImg(mask_reg="own_label", tv_weight=0.5, sigmoid=True), model)
        xcam.save(net, tmp_path / "net.safetensors")
        loaded = xcam.load(tmp_path / "net.safetensors")
        assert loaded.method == net.method
        images = pictures(size=32)
        raw = xcam.explain(net, images, method=None).raw
        assert torch.equal(xcam.explain(loaded, images, method=None).raw, raw)
        assert not any(value.requires_grad for value in loaded.model.classifier.parameters())


class TestRefusals:
    @BOTH
    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"labels": "true"}, "labels must be 'predicted' or 'given', got 'true'"),
            ({"mask_reg": "all"}, "mask_reg must be 'own_label' or 'batch_labels', got 'all'"),
            ({"tv_weight": -1.0}, "tv_weight must be a finite number of at least 0, .*got -1.0"),
            ({"area_weight": math.nan}, "area_weight must be a finite number of .*got nan"),
            ({"ce_weight": -0.1}, "ce_weight must be a finite number of at least 0, .*got -0.1"),
            ({"area_power": 0.0}, "area_power must be a finite number above 0, .*got 0.0"),
        ],
    )
    def test_parameters(self, method, parameters, message):
        with pytest.raises(ValueError, match=message):
            method(**parameters)

    @BOTH
    def test_layers(self, method):
        with pytest.raises(LayerError, match=r"layer 'fc' has an output of shape \(1, 5\)"):
            method(layer="fc").attach(GapNet())

    def test_another_methods_head(self):
        with pytest.raises(NotFittedError, match="lcam_img needs a model with its head, and this"):
            xcam.explain(fitted(LCAMFm()), pictures(), method="lcam_img")

    def test_another_layer_than_the_heads(self):
        with pytest.raises(ValueError, match="made with layer='features', got layer='fc'"):
            xcam.explain(fitted(LCAMFm()), pictures(), method="lcam_fm", layer="fc")


class Colours(nn.Module):
    """Near 1 where a pixel has one of some colours, (B, K, H / 2, W / 2)."""

    def __init__(self, colors):
        super().__init__()
        self.register_buffer("colors", colors[:, :, None, None])

    def forward(self, images):
        off = (images[:, None] - self.colors).square().sum(2)
        return F.avg_pool2d((-5 * off).exp(), 2)


class Painted(nn.Module):
    """Tells planted cues by how much of an image has the colour of each class; the last is none."""

    def __init__(self, colors):
        super().__init__()
        self.features = Colours(colors)
        self.stem = nn.Conv2d(3, 3, 1)  # unused; says how many channels the images have

    def forward(self, images):
        return F.pad(100 * self.features(images).mean((2, 3)), (0, 1), value=1.5)


def drawn(count, **settings):
    """Images, labels and masks, stacked."""
    items = planted_cues(count, 32, 4, "color", colors=COLOURS, **settings)
    return [torch.stack(list(map(torch.as_tensor, part))) for part in zip(*items, strict=True)]


@BOTH
@pytest.mark.parametrize("mask_reg", ["own_label", "batch_labels"])
def test_training_finds_the_cue_of_each_class(method, mask_reg):
    """Trained on images of one cue; of two, the map of a class is on its own, not on the other."""
    images, labels, _ = drawn(64, seed=1, distractors=1)
    net = Painted(COLOURS)
    assert (net(images).argmax(1) == labels).float().mean() > 0.9
    trained = xcam.fit(
        Normalized(net, (0.0,), (1.0,), input_size=32),
        TensorDataset(images, labels),
        method(layer="features", mask_reg=mask_reg),
        epochs=20,
        batch_size=16,
        optimizer={"name": "Adam", "lr": 0.2},
    )
    images, labels, cues = drawn(16, seed=2, distractors=0, cues=2)
    others = cues.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    maps = xcam.explain(trained, images, labels, method=None, sigmoid=True).maps

    def inside(masks):
        return (maps * masks).sum((1, 2)) / masks.sum((1, 2))

    assert (inside(cues) > inside(others)).float().mean() > 0.9
    assert inside(cues).mean() > 2 * maps.mean()


def test_zeros_save_the_class_that_large_features_would_lose():
    """A class that starts at c = -8 on its cue stays dark; from zeros it is learned."""
    images, labels, _ = drawn(64, seed=1, distractors=1)
    net = Normalized(Painted(COLOURS), (0.0,), (1.0,), input_size=32)

    def lowest(method, start):
        torch.manual_seed(0)
        head = method.attach(net)
        with torch.no_grad():
            head.head.bias[2] += start
        settings = {"epochs": 8, "batch_size": 16, "optimizer": {"name": "SGD", "lr": 0.5}}
        trained = xcam.fit(head, TensorDataset(images, labels), **settings)
        return xcam.explain(trained, images[labels == 2], 2).maps.amax((1, 2)).min()

    assert lowest(LCAMImg(layer="features", zero_init=True), 0.0) > 0
    assert lowest(LCAMImg(layer="features"), -8.0) < 0
