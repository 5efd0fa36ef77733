"""Layer fusion, augmentation and eigen smoothing: their formulas, and grad-cam's own."""

import copy
import warnings

import pytest
import torch
from torch import nn

import xcam
from xcam import imaging
from xcam.core import MethodSpec
from xcam.methods import (
    AugSmooth,
    EigenGradCAM,
    EigenSmooth,
    GradCAM,
    HiResCAM,
    LayerCAM,
    LayerFusion,
    Saliency,
)

SIZE = (20, 28)
CLASSES = [1, 3]


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()]
    head = [nn.AvgPool2d(5), nn.Flatten(), nn.Linear(32, 5)]
    net = nn.Sequential(*layers, *head).eval()
    with torch.no_grad():
        net[-1].weight.mul_(1000)  # grad-cam adds 1e-7 to the ranges that it divides by
    return net


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def peer():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies, as they are imported
        import pytorch_grad_cam
    return pytorch_grad_cam


def peer_maps(cam, net, layers, images, **options):
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    net = copy.deepcopy(net)
    targets = [ClassifierOutputTarget(c) for c in CLASSES]
    with cam(net, [net[layer] for layer in layers]) as extractor:
        return torch.from_numpy(extractor(images.clone(), targets, **options))


def scaled(maps):
    """Cut at zero and stretched, as grad-cam does at both sizes."""
    return imaging.normalize(maps.clamp(min=0))


BASES = [("gradcam", "GradCAM"), ("hirescam", "HiResCAM"), ("layercam", "LayerCAM")]


@pytest.mark.parametrize(("base", "name"), BASES)
def test_fused_layers_are_those_of_grad_cam(peer, net, images, base, name):
    found = xcam.explain(net, images, CLASSES, base, layer=["1", "4"])
    theirs = peer_maps(getattr(peer, name), net, [1, 4], images)
    assert (scaled(found.maps) - theirs).abs().max() < 1e-5
    one = peer_maps(getattr(peer, name), net, [4], images)
    assert (one - theirs).abs().max() > 0.1


@pytest.mark.parametrize(("base", "name"), BASES)
def test_augmented_maps_are_those_of_grad_cam(peer, net, images, base, name):
    pytest.importorskip("ttach")
    found = xcam.explain(net, images, CLASSES, "aug_smooth", base=(base, {"layer": "4"}))
    theirs = peer_maps(getattr(peer, name), net, [4], images, aug_smooth=True)
    assert (found.maps - theirs).abs().max() < 1e-5
    plain = peer_maps(getattr(peer, name), net, [4], images)
    assert (plain - theirs).abs().max() > 0.05


@pytest.mark.parametrize(("base", "name"), BASES)
def test_eigen_smoothed_maps_are_those_of_grad_cam_up_to_their_sign(peer, net, images, base, name):
    raw = xcam.explain(net, images, CLASSES, "eigen_smooth", base=(base, {"layer": "1"})).raw
    theirs = peer_maps(getattr(peer, name), net, [1], images, eigen_smooth=True)
    either = torch.stack(
        [
            (scaled(imaging.resize(scaled(sign * raw), SIZE)) - theirs).abs().amax((1, 2))
            for sign in (1, -1)
        ]
    )
    assert either.amin(0).max() < 1e-4
    assert either.amax(0).min() > 0.1


def test_fusion_is_the_mean_of_normalized_maps(net, images):
    found = xcam.explain(net, images, CLASSES, layer=["1", net[4]], output="prob")
    parts = [xcam.explain(net, images, CLASSES, layer=one, output="prob").raw for one in "14"]
    expected = torch.stack([imaging.resize(scaled(one), SIZE) for one in parts]).mean(0)
    assert torch.allclose(found.raw, expected, atol=1e-6)
    assert found.method == LayerFusion(("1", "4"), GradCAM(output="prob"))
    assert found.method.spec.title == "Layer fusion of Grad-CAM"
    assert found.target.tolist() == CLASSES
    alone = xcam.explain(net, images, CLASSES, layer=["4"])
    assert alone.method == GradCAM("4")


def test_fusion_inside_other_methods_and_files(net, images, tmp_path):
    found = xcam.explain(net, images, CLASSES, AugSmooth(GradCAM(layer=["1", "4"])))
    assert found.method.base == LayerFusion(("1", "4"), GradCAM())
    found.save(tmp_path / "maps.safetensors")
    assert xcam.load(tmp_path / "maps.safetensors").method == found.method
    several = xcam.explain(net, images, CLASSES, ["gradcam", "layercam"], layer=["1", "4"])
    assert several["layercam"].method.base == LayerCAM()


def test_augmentation_is_the_mean_over_changed_images(net, images):
    method = AugSmooth(GradCAM("4"), factors=(0.5, 2.0), normalize_each=False)
    found = xcam.explain(net, images, CLASSES, method)
    parts = [
        torch.stack([
            xcam.explain(net, images * factor, CLASSES, layer="4").raw,
            xcam.explain(net, images.flip(3) * factor, CLASSES, layer="4").raw.flip(2),
        ]).mean(0)
        for factor in (0.5, 2.0)
    ]  # fmt: skip
    assert torch.allclose(found.raw, torch.stack(parts).mean(0), atol=1e-6)
    same = AugSmooth(GradCAM("4"), factors=(1.0,), mirrored=False, normalize_each=False)
    assert torch.equal(
        xcam.explain(net, images, CLASSES, same).raw,
        xcam.explain(net, images, CLASSES, layer="4").raw,
    )


def test_augmentation_of_pixel_maps(net, images):
    found = xcam.explain(net, images, CLASSES, AugSmooth(Saliency(), normalize_each=False))
    assert found.raw.shape == images.shape
    assert xcam.explain(net, images, CLASSES, AugSmooth(Saliency())).raw.shape == (2, *SIZE)


def test_class_is_that_of_the_clean_image(net, images):
    clean = xcam.explain(net, images)
    dark = AugSmooth(GradCAM("4"), factors=(1e-3,), mirrored=False)
    found = xcam.explain(net, images, method=dark)
    assert found.target.tolist() == clean.target.tolist()
    assert torch.equal(found.logits, clean.logits)


def test_eigen_smoothing_of_hirescam_is_eigen_grad_cam(net, images):
    found = xcam.explain(net, images, CLASSES, EigenSmooth(HiResCAM("1")))
    expected = xcam.explain(net, images, CLASSES, EigenGradCAM("1"))
    assert torch.allclose(found.raw, expected.raw, atol=1e-6)


def test_eigen_smoothing_takes_a_singular_vector(net, images):
    """Rank-one channels give back their own pattern, centered."""
    found = xcam.explain(net, images, CLASSES, EigenSmooth(GradCAM("1")))
    activation = net[1](net[0](images)).detach().requires_grad_()
    net[2:](activation)[range(2), CLASSES].sum().backward()
    weighted = activation.grad.mean((2, 3), keepdim=True) * activation.detach()
    for raw, channels in zip(found.raw, weighted, strict=True):
        rows = channels.flatten(1).mT
        rows = rows - rows.mean(0)
        axis = torch.linalg.svd(rows, full_matrices=False).Vh[0]
        projection = rows @ axis
        projection = projection * torch.sign((projection * channels.mean(0).flatten()).sum())
        assert torch.allclose(raw.flatten(), projection, atol=1e-5)


def test_specs_speak_of_the_base():
    assert AugSmooth(GradCAM()).spec.cost == "1 forward + 6 × (1 forward + tail backward)"
    assert not AugSmooth(GradCAM()).spec.signed
    assert AugSmooth(GradCAM(), normalize_each=False).spec.signed
    assert isinstance(EigenSmooth(LayerCAM()).spec, MethodSpec)
    assert EigenSmooth(LayerCAM()).spec.title == "Eigen smoothing of LayerCAM"
