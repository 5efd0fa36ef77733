"""Score-CAM against a loop over channels, and against grad-cam and torchcam."""

import warnings

import pytest
import torch
import torch.nn.functional as F
import torchvision

import xcam
from xcam import imaging
from xcam.methods import ScoreCAM
from xcam.methods.perturbation.scorecam import find_varying_channels
from xcam.models.toy import GapNet, SmallCNN


def pictures(count=2, size=16, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def stretched(mask):
    return (mask - mask.min()) / (mask.max() - mask.min())


def by_hand(net, image, target, weighting, normalize="after", align_corners=False, fill=0.0):
    """One channel of one (1, C, H, W) image at a time; flat channels are left out."""
    kept = []
    with torch.no_grad():
        with net.features.register_forward_hook(lambda m, i, output: kept.append(output[0])):
            net(image)
        channels = [channel for channel in kept[0] if channel.max() > channel.min()]
        weights = []
        for channel in channels:
            low = stretched(channel) if normalize == "before" else channel
            large = F.interpolate(
                low[None, None], image.shape[2:], mode="bilinear", align_corners=align_corners
            )
            mask = stretched(large) if normalize == "after" else large
            logits = net(image * mask + fill * (1 - mask))
            if weighting == "softmax_logit":
                weights.append(logits[0, target])
            else:
                weights.append(logits.softmax(1)[0, target])
        weights = torch.stack(weights)
        if weighting == "softmax_logit":
            weights = weights.softmax(0)
        if weighting == "cic":
            weights = weights - net(torch.full_like(image, fill)).softmax(1)[0, target]
    return sum(w * channel for w, channel in zip(weights, channels, strict=True))


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max())


@pytest.mark.parametrize("net", [GapNet(), GapNet(relu=False), SmallCNN()], ids=str)
@pytest.mark.parametrize("weighting", ["prob", "softmax_logit", "cic"])
def test_it_is_the_loop_over_channels(net, weighting):
    images, classes = pictures(3), [4, 1, 2]
    expected = [
        by_hand(net, images[i : i + 1], target, weighting) for i, target in enumerate(classes)
    ]
    method = ScoreCAM(layer="features", weighting=weighting)
    for batch_size in (1, 7, None):
        e = xcam.explain(net, images, classes, method, batch_size=batch_size)
        assert_close(e.raw, torch.stack(expected))


@pytest.mark.parametrize("normalize", ["after", "before"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_masks_are_made_in_either_order(normalize, align_corners):
    net, image = SmallCNN(), pictures(1)
    expected = by_hand(net, image, 1, "prob", normalize, align_corners)
    method = ScoreCAM(layer="features", normalize=normalize, align_corners=align_corners)
    assert_close(xcam.explain(net, image, 1, method).raw[0], expected)


def test_variants_give_different_maps():
    net, image = SmallCNN(), pictures(1)
    variants = [
        {},
        {"weighting": "softmax_logit"},
        {"weighting": "cic"},
        {"normalize": "before"},
        {"align_corners": True},
        {"fill": torch.tensor(1.0)},
    ]
    maps = [
        xcam.explain(net, image, 1, "scorecam", **v).normalized(relu=False)[0] for v in variants
    ]
    for i, one in enumerate(maps):
        for other in maps[:i]:
            assert (one - other).abs().max() > 1e-4


@pytest.mark.parametrize("weighting", ["prob", "cic"])
def test_fill_is_what_stands_behind_the_mask(weighting):
    net, image = SmallCNN(), pictures(1)
    method = ScoreCAM(layer="features", weighting=weighting, fill=torch.tensor(0.7))
    expected = by_hand(net, image, 1, weighting, fill=0.7)
    assert_close(xcam.explain(net, image, 1, method).raw[0], expected)


def flattened(net, channels, value):
    """The net with some channels of its features at a constant."""
    net.features[2].weight.data[channels] = 0
    net.features[2].bias.data[channels] = value
    return net


@pytest.mark.parametrize("value", [-1.0, 0.3])
@pytest.mark.parametrize("weighting", ["prob", "softmax_logit", "cic"])
def test_flat_channels_weigh_nothing_and_take_no_pass(value, weighting):
    net, images = flattened(GapNet(relu=False), slice(2, 6), value), pictures(2)
    expected = [by_hand(net, images[i : i + 1], 1, weighting) for i in range(2)]
    seen = []
    net.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    e = xcam.explain(net, images, 1, "scorecam", weighting=weighting)
    assert sum(seen) == 2 * (1 + 8 + (weighting == "cic"))
    assert_close(e.raw, torch.stack(expected))


def test_channel_of_low_contrast_is_used_as_a_mask():
    net, image = GapNet(relu=False).double(), pictures(1).double()
    channel = net.features(image).detach()[0, 3]
    net.features[2].bias.data[3] += 100 * (channel.max() - channel.min())
    expected = by_hand(net, image, 1, "prob")
    found = xcam.explain(net, image, 1, "scorecam").raw[0]
    assert_close(found, expected.to(found.dtype))
    channels = torch.ones(1, 2, 4, 4)
    channels[0, :, 0, 0] += torch.tensor([1e-5, 2e-7])  # the second is a rounding
    assert find_varying_channels(channels).tolist() == [[True, False]]


@pytest.mark.parametrize("weighting", ["prob", "softmax_logit", "cic"])
def test_without_any_mask_the_map_is_zero(weighting):
    net = flattened(GapNet(), slice(None), 0.3)
    e = xcam.explain(net, pictures(2), 1, "scorecam", weighting=weighting)
    assert torch.equal(e.raw, torch.zeros(2, 8, 8))
    assert "flat" in e.warnings[0]


def test_callable_target_gives_the_maps_of_its_classes():
    net, images = SmallCNN(), pictures(2)
    classes = torch.tensor([3, 0])

    def probability(output, rows):
        return output.softmax(1).gather(1, classes[rows, None])[:, 0]

    by_callable = xcam.explain(net, images, probability, "scorecam")
    assert_close(by_callable.raw, xcam.explain(net, images, classes, "scorecam").raw)


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_authors_cut_the_enlarged_map(align_corners):
    """Each channel is enlarged, then weighted and summed, then cut, as in the authors' loop."""
    net, image, kept = GapNet(relu=False), pictures(1), []
    with torch.no_grad(), net.features.register_forward_hook(lambda *args: kept.append(args[2])):
        net(image)
        large = F.interpolate(kept[0], (16, 16), mode="bilinear", align_corners=align_corners)[0]
        weights = [net(image * stretched(one)).softmax(1)[0, 2] for one in large]
        summed = sum(w * one for w, one in zip(weights, large, strict=True))
    settings = {"align_corners": align_corners, "relu": True}
    found = xcam.explain(net, image, 2, ScoreCAM(enlarged=True, **settings))
    assert_close(found.raw[0], summed.relu())
    assert torch.equal(found.maps, found.raw)
    assert summed.amin() < 0 < summed.amax()
    cut_before = xcam.explain(net, image, 2, ScoreCAM(**settings)).maps[0]
    assert (cut_before - summed.relu()).abs().max() > 0.01 * summed.amax()


def test_relu_cuts_at_zero():
    net, images = GapNet(relu=False), pictures()
    raw = xcam.explain(net, images, 0, ScoreCAM()).raw
    assert raw.min() < 0
    assert torch.equal(xcam.explain(net, images, 0, ScoreCAM(relu=True)).raw, raw.relu())


@pytest.mark.parametrize(
    ("field", "value"), [("weighting", "logit"), ("normalize", "never"), ("fill", "black")]
)
def test_bad_fields_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must be .*got {value!r}"):
        ScoreCAM(**{field: value})


@pytest.fixture(scope="module")
def scene():
    """A ResNet-18 of random weights, two pictures, and the classes that it sees in them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torchvision.models.resnet18().eval()
    images = pictures(2, 64)
    return net, images, net(images).argmax(1).tolist()


def test_it_is_that_of_grad_cam(scene):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies, as they are imported
        from pytorch_grad_cam import ScoreCAM as Theirs
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    net, images, classes = scene
    with Theirs(net, [net.layer1]) as extractor:
        theirs = extractor(images, [ClassifierOutputTarget(c) for c in classes])
    method = ScoreCAM("layer1", weighting="softmax_logit", align_corners=True, relu=True)
    ours = imaging.normalize(xcam.explain(net, images, classes, method).raw)
    found = imaging.normalize(imaging.resize(ours, (64, 64)))
    torch.testing.assert_close(found, torch.from_numpy(theirs), rtol=0, atol=1e-5)


def test_it_is_that_of_torchcam(scene):
    methods = pytest.importorskip("torchcam.methods")
    net, images, classes = scene
    with methods.ScoreCAM(net, "layer1", input_shape=(3, 64, 64)) as extractor:
        with torch.no_grad():
            net(images)
        theirs = extractor(classes)[0]
    method = ScoreCAM("layer1", weighting="softmax_logit", normalize="before", relu=True)
    ours = imaging.normalize(xcam.explain(net, images, classes, method).raw)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
