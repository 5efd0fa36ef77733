"""CAMs that xcam computes by formulas of grad-cam and torch-cam: their own calls give the same."""

import numpy as np
import pytest
import torch
from nets import pictures, unchanged
from test_bridges import Modules
from torch import nn

import xcam
from xcam.methods.gradient.noisy_copies import draw_noise
from xcam.models.toy import GapNet

IMAGES = pictures(2, size=8)
CLASSES = [1, 3]


@pytest.fixture
def net():
    """A net whose score is curved behind the layer."""
    return Modules(nn.Tanh).requires_grad_(True)


def render(raw, images=IMAGES):
    """What grad-cam makes of a map."""
    image = pytest.importorskip("pytorch_grad_cam.utils.image")
    maps = np.maximum(raw.numpy(), 0)
    return image.scale_cam_image(image.scale_cam_image(maps, images.shape[:1:-1]))


def run_grad_cam(name, net, target=None, layer="second", **settings):
    """Their own call, hooks and gradients removed afterwards."""
    library = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    kind = getattr(targets, target or "ClassifierOutputTarget")
    chosen = getattr(library, name)(net, [net.get_submodule(layer)], **settings)
    with chosen as cam:
        return cam(IMAGES.clone(), [kind(each) for each in CLASSES])


@pytest.mark.parametrize(
    ("theirs", "name", "target", "settings"),
    [
        ("GradCAMElementWise", "gradcam_elementwise", None, {}),
        ("SegEigenCAM", "seg_eigencam", None, {}),
        ("FEM", "fem", None, {"k": 1}),
        ("ShapleyCAM", "shapleycam", "ClassifierOutputReST", {}),
    ],
)
def test_grad_cam_gives_the_same(theirs, name, target, settings, net):
    own = {key: float(value) for key, value in settings.items()}
    raw = xcam.explain(net, IMAGES, CLASSES, name, layer="second", **own).raw
    expected = run_grad_cam(theirs, net, target, **settings)
    np.testing.assert_allclose(render(raw), expected, atol=2e-5)


@pytest.mark.parametrize("kernel", ["sigmoid", "rbf", "poly", "cosine", "linear"])
def test_grad_cam_gives_the_same_kernel_pca_but_for_the_sign(kernel, net):
    raw = xcam.explain(net, IMAGES, CLASSES, "kpca_cam", layer="second", kernel=kernel).raw
    expected = run_grad_cam("KPCA_CAM", net, kernel=kernel)
    for image, found in enumerate(expected):
        both = [render(sign * raw)[image] for sign in (1, -1)]
        assert min(np.abs(each - found).max() for each in both) < 1e-4


def test_kernel_pca_with_a_linear_kernel_is_eigencam(net):
    kernel = xcam.explain(net, IMAGES, 1, "kpca_cam", layer="second", kernel="linear").raw
    torch.testing.assert_close(kernel, xcam.explain(net, IMAGES, 1, "eigencam", layer="second").raw)


def test_shapleycam_by_hand(net):
    """w = mean(g − ½ H A), the Hessian by autograd."""
    raw = xcam.explain(net, IMAGES[:1], 1, "shapleycam", layer="second", output="prob").raw
    hidden = net.act1(net.first(net.max_pool(IMAGES[:1])))
    layer = net.second(hidden).detach()

    def score(values):
        tail = net.act3(net.act2(values.view_as(layer)) + hidden.detach())
        return net.fc(net.pool(tail).flatten(1)).softmax(1)[0, 1]

    gradient = torch.autograd.functional.jacobian(score, layer.flatten())
    hessian = torch.autograd.functional.hessian(score, layer.flatten())
    weights = (gradient - hessian @ layer.flatten() / 2).view_as(layer).mean((2, 3), keepdim=True)
    torch.testing.assert_close(raw, (weights * layer).sum(1).detach(), rtol=1e-4, atol=1e-7)


def test_shapleycam_of_a_logit_behind_relus_is_gradcam():
    found = xcam.explain(GapNet(), IMAGES, 1, "shapleycam", output="logit").raw
    torch.testing.assert_close(found, xcam.explain(GapNet(), IMAGES, 1, "gradcam").raw)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_grad_cam_gives_the_same_finer_cam(alpha, net):
    library = pytest.importorskip("pytorch_grad_cam")
    base = ("gradcam", {"layer": "second"})
    raw = xcam.explain(net, IMAGES, None, "finercam", base=base, alpha=alpha).raw
    with library.FinerCAM(net, [net.second]) as cam:
        expected = cam(IMAGES.clone(), alpha=alpha)
    np.testing.assert_allclose(render(raw), expected, atol=2e-5)


def test_grad_cam_gives_the_same_refinecam(net):
    library = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    image = pytest.importorskip("pytorch_grad_cam.utils.image")
    with torch.no_grad():
        net.fc.weight.mul_(1e3)  # they add constants to denominators and ranges
    base = ("gradcam", {"relu": True})
    raw = xcam.explain(net, IMAGES, CLASSES, "refinecam", base=base, layers=("first", "second")).raw
    layers = [net.first, net.second]
    theirs = library.RefineCAM(net, layers, base_method=library.GradCAM)
    expected = theirs(IMAGES.clone(), [targets.ClassifierOutputTarget(each) for each in CLASSES])
    for each in theirs.base_cam_per_layer:
        each.activations_and_grads.release()
    np.testing.assert_allclose(image.scale_cam_image(raw.numpy()), expected, atol=1e-4)


def test_refinecam_takes_the_ends_of_the_stages():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5),
    ).eval()  # fmt: skip
    found = xcam.explain(net, IMAGES, 1, "refinecam", base="gradcam").raw
    several = xcam.explain(net, IMAGES, 1, "refinecam", base="gradcam", layers=("1", "4")).raw
    torch.testing.assert_close(found, several)


def test_refinecam_refuses_a_base_without_layers_and_the_remedy_applies(net):
    with pytest.raises(TypeError, match="saliency has none; give a CAM, such as base='gradcam_plu"):
        xcam.explain(net, IMAGES, 1, "refinecam", base="saliency")
    assert xcam.explain(net, IMAGES, 1, "refinecam", base="gradcam_plusplus").raw.isfinite().all()


@pytest.mark.parametrize("smooth", [True, False])
def test_grad_cam_gives_the_same_sess(smooth, net):
    library = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    image = pytest.importorskip("pytorch_grad_cam.utils.image")
    images = pictures(2, size=24)
    with torch.no_grad():
        net.fc.weight.mul_(1e3)  # they add constants to ranges
    base = ("gradcam", {"layer": "second"})
    raw = xcam.explain(net, images, CLASSES, "sess", base=base, n_scales=4, smooth=smooth).raw
    with library.SESS(net, [net.second], num_scales=4, smooth=smooth) as cam:
        expected = cam(images, [targets.ClassifierOutputTarget(each) for each in CLASSES])
    np.testing.assert_allclose(image.scale_cam_image(raw.numpy()), expected, atol=2e-3)


def test_finercam_refuses_a_callable_and_the_remedy_applies(net):
    def read(output, rows):
        return output[:, 1]

    with unchanged(net, IMAGES), pytest.raises(TypeError, match="the target is a callable; give a"):
        xcam.explain(net, IMAGES, read, "finercam")
    assert xcam.explain(net, IMAGES, 1, "finercam").raw.isfinite().all()
    assert xcam.explain(net, IMAGES, read, "gradcam").raw.isfinite().all()


@pytest.mark.parametrize(
    ("classes", "base", "sentence"),
    [
        (5, "finercam", "finercam cannot be the base of finercam"),
        (5, ("gradcam", {"output": "prob"}), "its base has output='prob'; leave out"),
        (1, "gradcam", "the model has one output; explain it by the base itself"),
    ],
)
def test_finercam_refuses_what_it_cannot_compare(classes, base, sentence):
    with pytest.raises(ValueError, match=sentence):
        xcam.explain(GapNet(num_classes=classes).eval(), IMAGES, 0, "finercam", base=base)


def test_shapleycam_takes_the_score_of_a_callable_once():
    net = GapNet().eval()
    found = xcam.explain(net, IMAGES, lambda output, rows: output[:, 1], "shapleycam").raw
    expected = xcam.explain(net, IMAGES, 1, "shapleycam", output="logit").raw
    torch.testing.assert_close(found, expected)


def test_grad_cam_gives_the_same_fullgrad(capsys):
    library = pytest.importorskip("pytorch_grad_cam")
    image = pytest.importorskip("pytorch_grad_cam.utils.image")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1),
        nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5),
    ).eval()  # fmt: skip
    net[2].running_mean.fill_(0.3)
    net[-1].weight.data.mul_(1e4)  # they add 1e-7 to a channel's range
    raw = xcam.explain(net, IMAGES, CLASSES, "fullgrad").raw
    with library.FullGrad(net, []) as cam:
        expected = cam(IMAGES.clone(), [targets.ClassifierOutputTarget(each) for each in CLASSES])
    np.testing.assert_allclose(image.scale_cam_image(raw.numpy()), expected, atol=1e-4)


def test_random_cam_weights_channels_in_minus_one_to_one(net):
    raw = xcam.explain(net, IMAGES, 1, "random_cam", layer="second", seed=3).raw
    hidden = net.act1(net.first(net.max_pool(IMAGES)))
    layer = net.second(hidden).detach()
    weights = torch.linalg.lstsq(layer[0].flatten(1).mT, raw[0].flatten()).solution
    assert weights.abs().max() <= 1
    torch.testing.assert_close(raw[1], (weights[:, None, None] * layer[1]).sum(0))
    other = xcam.explain(net, IMAGES, 1, "random_cam", layer="second", seed=4).raw
    assert not torch.allclose(raw, other)


class Drawn:
    """In place of torch-cam's noise: what is drawn here."""

    def __init__(self, *noises):
        self.noises = list(noises)

    def sample(self, _size):
        return self.noises.pop(0)


def run_torchcam(name, net, noises=None, **settings):
    methods = pytest.importorskip("torchcam.methods")
    with getattr(methods, name)(net, "second", **settings) as cam:
        if noises is not None:
            cam._distrib = Drawn(*noises)
        scores = net(IMAGES[:1])
        return cam([1], scores, normalized=False)[0].detach()


def test_torchcam_gives_the_same_iscam():
    net = Modules()
    raw = xcam.explain(net, IMAGES[:1], 1, "iscam", layer="second", n_samples=3).raw
    expected = run_torchcam("ISCAM", net, num_samples=3, input_shape=(3, 8, 8))
    torch.testing.assert_close(raw.relu(), expected, rtol=1e-4, atol=1e-6)


def test_torchcam_gives_the_same_sscam():
    net = Modules()
    raw = xcam.explain(net, IMAGES[:1], 1, "sscam", layer="second", n_samples=2, noise=0.5).raw
    noises = [0.5 * draw_noise(torch.Size((4, 8, 8)), 0, sample)[None] for sample in range(2)]
    expected = run_torchcam("SSCAM", net, noises, num_samples=2, input_shape=(3, 8, 8))
    torch.testing.assert_close(raw.relu(), expected, rtol=1e-4, atol=1e-6)


def test_torchcam_gives_the_same_smooth_gradcam_plusplus_of_one_copy():
    net = Modules(nn.Tanh).requires_grad_(True)
    name, settings = "smooth_gradcam_plusplus", {"n_samples": 1, "noise": 0.5}
    raw = xcam.explain(net, IMAGES[:1], 1, name, layer="second", **settings).raw
    span = IMAGES[0].max() - IMAGES[0].min()
    noise = 0.5 * span * draw_noise(IMAGES[0].shape, 0, 0)[None]
    methods = pytest.importorskip("torchcam.methods")
    with methods.SmoothGradCAMpp(net, "second", num_samples=1, input_shape=(3, 8, 8)) as cam:
        cam._distrib = Drawn(noise)
        net(IMAGES[:1])
        activation = cam.hook_a[0].detach()
        (weights,) = cam._get_weights([1])  # their map is of the last copy's activation
    expected = (weights[:, :, None, None] * activation).sum(1).detach()
    torch.testing.assert_close(raw, expected, rtol=1e-2, atol=1e-5)


def test_smooth_gradcam_plusplus_without_noise_needs_one_copy():
    """Copies without noise are all the same one."""
    net = Modules(nn.Tanh)
    found = xcam.explain(
        net, IMAGES, 1, "smooth_gradcam_plusplus", layer="second", n_samples=3, noise=0.0
    ).raw
    one = xcam.explain(
        net, IMAGES, 1, "smooth_gradcam_plusplus", layer="second", n_samples=1, noise=0.0
    ).raw
    torch.testing.assert_close(found, one)
