"""The model decides which dtype its images have, whatever the dtype of its first parameter."""

import pytest
import torch
from nets import pictures, unchanged
from torch import nn
from torch.testing import assert_close
from torch.utils.data import TensorDataset

import xcam
from xcam.models import Normalized
from xcam.models.toy import GapNet
from xcam.testing import quick

IMAGES = pictures(2, size=16)
METHODS = [
    name
    for name in xcam.list_methods()
    if not isinstance(xcam.get_method(name)(), xcam.core.TrainableMethod)
    and not xcam.get_method(name).spec.net
]
SETTINGS = {
    "rise": {"n_masks": 4},
    "integrated_gradients": {"n_steps": 2},
    "smoothgrad": {"n_samples": 2},
    "smoothgrad_squared": {"n_samples": 2},
    "vargrad": {"n_samples": 2},
    "opticam": {"iterations": 2},
}


class ScaleFirst(nn.Module):
    """A body in half precision, and one parameter in full precision before it, as CLIP has."""

    def __init__(self):
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(0.5))
        self.net = GapNet().bfloat16()

    def forward(self, images):
        return self.net(images) * self.logit_scale.exp()


class FullHead(GapNet):
    """A stem in half precision, and a head in full precision."""

    def __init__(self):
        super().__init__()
        self.features.bfloat16()

    def forward(self, images):
        return self.fc(self.features(images).mean((2, 3)).float())


class FullNorm(GapNet):
    """A norm in full precision within a net in half precision."""

    def __init__(self):
        super().__init__()
        self.half()
        self.norm = nn.BatchNorm2d(12)
        self.norm.running_var.fill_(0.7)
        self.eval()

    def forward(self, images):
        return self.fc(self.norm(self.features(images).float()).half().mean((2, 3)))


class Casting(GapNet):
    """Casts its images by itself: it takes any."""

    def __init__(self):
        super().__init__()
        self.bfloat16()

    def forward(self, images):
        return super().forward(images.bfloat16())


TAKES = [
    (ScaleFirst, torch.bfloat16),
    (FullHead, torch.bfloat16),
    (FullNorm, torch.float16),
    (Casting, torch.float32),
    (Casting, torch.float16),
]


@pytest.mark.parametrize(("make", "dtype"), TAKES)
@pytest.mark.parametrize("method", METHODS)
def test_images_that_the_model_takes_are_explained_by_every_method(make, dtype, method):
    net, images = make(), IMAGES.to(dtype)
    made = quick(xcam.get_method(method)(**SETTINGS.get(method, {})))
    with unchanged(net, images):
        got = xcam.explain(net, images, 1, made)
    with torch.no_grad():
        assert_close(got.logits, net(images).float())  # those of the net called by hand
    assert got.maps.dtype == torch.float32
    assert got.maps.isfinite().all()


@pytest.mark.parametrize(("make", "dtype"), [(FullHead, torch.bfloat16), (ScaleFirst, None)])
def test_gradcam_is_weighted_by_the_mean_gradients_of_autograd(make, dtype):
    net, images = make(), IMAGES.to(dtype or torch.bfloat16)
    got = xcam.explain(net, images, 1, layer="features" if dtype else "net.features")
    gap = net if dtype else net.net
    with torch.no_grad():
        features = gap.features(images)
    leaf = features.clone().requires_grad_()
    means = leaf.mean((2, 3))
    score = gap.fc(means.float() if dtype else means)
    score = score if dtype else score * net.logit_scale.exp()
    (gradient,) = torch.autograd.grad(score[:, 1].float().sum(), leaf)
    expected = (gradient.float().mean((2, 3), keepdim=True) * features.float()).sum(1)
    assert_close(got.raw, expected)


@pytest.mark.parametrize(
    ("make", "given", "taken"),
    [
        (ScaleFirst, torch.float32, "bfloat16"),
        (FullHead, torch.float64, "bfloat16"),
        (FullNorm, torch.float32, "float16"),
        (GapNet, torch.bfloat16, "float32"),
        (lambda: GapNet().double(), torch.float32, "float64"),
    ],
)
@pytest.mark.parametrize("method", ["gradcam", "rise", "saliency", "sobel"])
def test_images_of_another_dtype_are_refused_with_the_one_that_the_model_takes(
    make, given, taken, method
):
    net, images = make(), IMAGES.to(given)
    with unchanged(net, images), pytest.raises(TypeError) as caught:
        xcam.explain(net, images, method=method)
    assert str(caught.value) == (
        f"images are {given} and the model takes torch.{taken}; use images.to(torch.{taken})"
    )
    xcam.explain(net, images.to(getattr(torch, taken)), method=method, **SETTINGS.get(method, {}))


@pytest.mark.parametrize(("make", "dtype"), TAKES)
def test_normalized_leaves_the_dtype_to_the_model(make, dtype):
    net = Normalized(make(), [0.0], [1.0]).eval()
    got = xcam.explain(net, IMAGES.to(dtype), 1, "rise", n_masks=4)
    assert_close(got.raw, xcam.explain(make(), IMAGES.to(dtype), 1, "rise", n_masks=4).raw)


def test_evaluate_refuses_images_of_another_dtype_before_it_begins():
    data = TensorDataset(IMAGES, torch.tensor([0, 1]))
    with pytest.raises(TypeError, match=r"the model takes torch.bfloat16; use images.to"):
        xcam.evaluate(ScaleFirst(), data, "sobel", ["complexity"])
    half = TensorDataset(IMAGES.bfloat16(), torch.tensor([0, 1]))
    assert xcam.evaluate(ScaleFirst(), half, "gradcam", ["insertion"]).errors().empty
