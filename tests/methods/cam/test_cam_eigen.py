"""Eigen-CAM and Eigen-Grad-CAM: the projection against NumPy's SVD, and its sign."""

import numpy as np
import pytest
import torch
from torch import nn

import xcam
from xcam.methods import EigenCAM, EigenGradCAM, HiResCAM
from xcam.methods.cam import projection
from xcam.models.toy import GapNet


def project_on_principal_axis(features):
    return projection.project_on_principal_axis(features, features.mean(1))


def svd_projection(features):
    """(C, h, w) -> (h, w) through the whole decomposition, of either sign."""
    rows = features.reshape(len(features), -1).T
    rows = rows - rows.mean(0)
    return (rows @ np.linalg.svd(rows)[2][0]).reshape(features.shape[1:])


def correlation(a, b):
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


@pytest.mark.parametrize(
    "shape", [(40, 4, 5), (6, 9, 8), (20, 4, 5)], ids=["wide", "tall", "square"]
)
def test_projection_is_that_of_the_svd(shape):
    features = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1)) + 0.3
    for one, got in zip(features, project_on_principal_axis(features), strict=True):
        expected = torch.from_numpy(svd_projection(one.double().numpy()))
        expected = expected if correlation(expected, one.mean(0).double()) >= 0 else -expected
        torch.testing.assert_close(got, expected.float(), rtol=1e-5, atol=1e-5)


def test_map_is_positive_where_a_planted_object_is():
    """Strong, channel-rich activations in one square on weak noise, in 20 draws."""
    generator = torch.Generator().manual_seed(2)
    features = 0.1 * torch.rand(20, 30, 8, 8, generator=generator)
    features[:, :, 2:5, 3:6] += 1 + torch.rand(20, 30, 1, 1, generator=generator)
    maps = project_on_principal_axis(features)
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[2:5, 3:6] = True
    assert bool((maps[:, inside] > 0).all())
    assert bool((maps[:, ~inside] < 0).all())


def test_sign_follows_the_mean_channel_not_the_extreme_value():
    """A dark hole: the value of largest magnitude is negative, and stays so."""
    features = torch.ones(1, 5, 4, 4)
    features[:, :, 1, 1] = 0
    [got] = project_on_principal_axis(features)
    assert got[1, 1] < 0 < got[0, 0]
    assert got.abs().argmax() == 5


def test_sign_without_a_guide_follows_the_extreme_value():
    """Channels that cancel up to rounding: noise does not decide the sign."""
    blob = torch.zeros(4, 4)
    blob[2, 3] = 1
    noise = 1e-8 * torch.randn(50, 2, 4, 4, generator=torch.Generator().manual_seed(3))
    features = torch.stack([blob, -blob]).expand(50, 2, 4, 4) + noise
    assert bool((project_on_principal_axis(features)[:, 2, 3] > 0).all())
    assert bool((project_on_principal_axis(-features)[:, 2, 3] > 0).all())


def test_images_of_a_batch_keep_apart():
    features = torch.randn(6, 12, 5, 4, generator=torch.Generator().manual_seed(4))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(
        project_on_principal_axis(features[order]), project_on_principal_axis(features)[order]
    )
    singles = torch.cat([project_on_principal_axis(one[None]) for one in features])
    torch.testing.assert_close(singles, project_on_principal_axis(features))


@pytest.mark.parametrize("value", [0.0, 0.1, -3.3])
@pytest.mark.parametrize("shape", [(30, 4, 5), (6, 9, 8)], ids=["wide", "tall"])
def test_constant_features_give_zeros(value, shape):
    constant = torch.full((2, *shape), value) * torch.arange(1, shape[0] + 1)[:, None, None]
    assert project_on_principal_axis(constant).abs().max() == 0


def test_features_that_are_not_finite_give_nan_for_their_image_alone():
    features = torch.randn(3, 4, 3, 3, generator=torch.Generator().manual_seed(5))
    features[1, 2, 0, 0] = torch.inf
    maps = project_on_principal_axis(features)
    assert bool(maps[1].isnan().all())
    torch.testing.assert_close(maps[[0, 2]], project_on_principal_axis(features[[0, 2]]))


@pytest.fixture(scope="module")
def images():
    return torch.randn(4, 3, 16, 24, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("relu", [True, False])
def test_eigencam_reads_the_activations(images, relu):
    net = GapNet(relu=relu)
    with torch.no_grad():
        features = net.features(images)
    guide = features.clamp(min=0).mean(1)
    expected = projection.project_on_principal_axis(features, guide)
    got = xcam.explain(net, images, 1, EigenCAM(layer="features")).raw
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert all(correlation(a, b) > 0 for a, b in zip(got, guide, strict=True))


def test_eigengradcam_reads_gradients_times_activations(images):
    net = GapNet()
    with torch.no_grad():
        features = net.features(images)
    slope = net.fc.weight[2].detach() / features[0, 0].numel()
    expected = project_on_principal_axis(features * slope[:, None, None])
    got = xcam.explain(net, images, 2, EigenGradCAM()).raw
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    hires = xcam.explain(net, images, 2, HiResCAM()).raw
    assert all(correlation(a, b) > 0 for a, b in zip(got, hires, strict=True))


class Weighted(nn.Module):
    """Features are the image's channels; the one logit is their weighted sum."""

    def __init__(self, weights):
        super().__init__()
        self.features, self.weights = nn.Identity(), torch.tensor(weights)

    def forward(self, images):
        return (self.features(images).sum((2, 3)) @ self.weights)[:, None]


def object_of(*values):
    """One place with these channels on an empty ground, (1, C, 4, 5)."""
    images = torch.zeros(1, len(values), 4, 5)
    images[0, :, 1, 2] = torch.tensor(values)
    return images


def test_eigencam_is_positive_where_a_signed_layer_is_active():
    """The object's few strong channels count, not the many that are silent there."""
    net = Weighted([1.0, 1.0, 1.0, 1.0])
    images = object_of(3.0, -1.5, -1.5, -1.5)
    [got] = xcam.explain(net, images, 0, EigenCAM(layer="features")).raw
    assert got[1, 2] > 0 > got[0, 0]


@pytest.mark.parametrize("weight", [2.0, -2.0])
def test_eigengradcam_is_positive_where_the_score_is_raised(weight):
    net = Weighted([weight, weight])
    [got] = xcam.explain(net, object_of(1.0, 3.0), 0, EigenGradCAM(layer="features")).raw
    assert got[1, 2] * weight > 0 > got[0, 0] * weight


@pytest.mark.parametrize("name", ["eigencam", "eigengradcam"])
def test_all_zero_layer_gives_a_zero_map_and_a_warning(name):
    class Silent(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.fc = nn.ReLU(), nn.Linear(3, 4)

        def forward(self, images):
            return self.fc(self.features(images).mean((2, 3)))

    e = xcam.explain(Silent().eval(), -torch.rand(2, 3, 5, 6), 1, name, layer="features")
    assert e.raw.abs().max() == 0
    assert "flat" in e.warnings[0]
