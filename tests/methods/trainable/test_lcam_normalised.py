"""L-CAM around a model that normalises its images: every pass sees them normalised; and dtypes."""

import pytest
import torch
from nets import pictures
from torch import nn
from torch.nn import functional as F

import xcam
from xcam.core import find_headed
from xcam.methods import LCAMFm, LCAMImg
from xcam.methods.trainable.lcam_masks import area, make_masks, variation
from xcam.models import Normalized
from xcam.models.toy import GapNet

BOTH = pytest.mark.parametrize("method", [LCAMFm, LCAMImg])
MEAN, STD = torch.tensor([0.2, 0.5, 0.7]), torch.tensor([0.1, 0.4, 0.2])
GIVEN = torch.tensor([1, 3, 1, 0])
IMAGES = pictures(4, size=16)


def normalized(images):
    return (images - MEAN[:, None, None]) / STD[:, None, None]


def attached(method):
    """Around a net that tells another class of an image that nothing has normalised."""
    net = GapNet()
    with torch.no_grad():
        net.fc.weight *= 10  # or it would give all images one class
        net.fc.bias -= net(normalized(IMAGES)).mean(0)
        assert (net(normalized(IMAGES)).argmax(1) != net(IMAGES).argmax(1)).any()
    torch.manual_seed(0)
    return method.attach(Normalized(net, MEAN.tolist(), STD.tolist(), input_size=16))


def by_hand(net, images):
    """The classifier, its features of the normalised images, and c of every class."""
    headed = find_headed(net)
    features = headed.classifier.features(normalized(images))
    weight, bias = headed.head.weight[:, :, 0, 0], headed.head.bias
    c = torch.einsum("kc,bchw->bkhw", weight, features) + bias[:, None, None]
    return headed.classifier, features, c


@BOTH
@pytest.mark.parametrize("labels", ["predicted", "given"])
def test_loss(method, labels):
    """The labels, the features, and what the masked pass sees, are of normalised images."""
    method = method(labels=labels)
    net = attached(method)
    backbone, features, c = by_hand(net, IMAGES)
    chosen = backbone(normalized(IMAGES)).argmax(1) if labels == "predicted" else GIVEN
    masks = c.sigmoid()
    own = masks[torch.arange(4), chosen][:, None]
    if isinstance(method, LCAMFm):
        logits = backbone.fc((own * features).mean((2, 3)))
    else:
        large = F.interpolate(own, (16, 16), mode="bilinear", align_corners=False)
        logits = backbone(normalized(large * IMAGES))
    wanted = (
        0.01 * variation(masks[:, chosen])
        + 2 * area(masks[:, chosen], 0.3)
        + 1.5 * F.cross_entropy(logits, chosen)
    )
    found = method.loss(net, IMAGES, GIVEN)[0]
    assert torch.allclose(found, wanted, atol=1e-5)
    trained = [net.model.head.weight, net.model.head.bias]
    gradients = [torch.autograd.grad(loss, trained) for loss in (found, wanted)]
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@BOTH
def test_maps(method):
    """Of a class, and of a score whose slope is in the logits of the normalised images."""
    net = attached(method())
    net.fitted = True
    backbone, _, c = by_hand(net, IMAGES)
    found = xcam.explain(net, IMAGES, GIVEN, method=None)
    assert torch.allclose(found.raw, c[torch.arange(4), GIVEN], atol=1e-5)
    logits = backbone(normalized(IMAGES))
    found = xcam.explain(net, IMAGES, method=None)
    assert torch.allclose(found.raw, c[torch.arange(4), logits.argmax(1)], atol=1e-5)
    found = xcam.explain(net, IMAGES, lambda z, rows: z[:, 2].square(), method=None)
    wanted = 2 * logits[:, 2, None, None] * c[:, 2]
    assert torch.allclose(found.raw, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("autocast", [True, False])
def test_masks_are_squashed_in_full_precision(autocast):
    """A convolution in bfloat16 has 8 digits of c, and a those of float32."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(8, 5, 1)
    features = torch.randn(2, 8, 4, 4)
    if not autocast:
        convolution, features = convolution.bfloat16(), features.bfloat16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        masks, c = make_masks(convolution, features), convolution(features)
    assert c.dtype == torch.bfloat16
    assert masks.dtype == torch.float32
    assert torch.equal(masks, c.float().sigmoid())
    assert not torch.equal(masks, c.sigmoid().float())
    assert make_masks(convolution.double(), features.double()).dtype == torch.float64
