"""The CAM family against grad-cam and captum, on a trained net and real photographs.

grad-cam's pictures are always cut at zero, stretched to [0, 1] at the layer's size, enlarged, and
stretched again; `picture` does that to our raw maps, so that formulas alone are compared.
"""

import copy
import warnings

import pytest
import torch
from torch import nn

import xcam
from xcam import imaging
from xcam.engine import find_module
from xcam.methods import (
    EigenCAM,
    EigenGradCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    XGradCAM,
)

LIMIT = 1e-5  # on maps in [0, 1]
SIZE = (160, 160)


@pytest.fixture(scope="module")
def peer():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies, as they are imported
        import pytorch_grad_cam
    return pytorch_grad_cam


@pytest.fixture(scope="module")
def photographs():
    """A cat and a cup of coffee, (2, 3, 160, 160)."""
    from skimage import data

    arrays = (data.chelsea(), data.coffee())
    images = [torch.from_numpy(array).movedim(2, 0) / 255 for array in arrays]
    return torch.stack([imaging.fit(image, SIZE) for image in images])


@pytest.fixture(scope="module")
def nets():
    """A trained EfficientNet-Lite0, and a ResNet-18 of random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        resnet = xcam.models.load("torchvision:resnet18")
    return {"lite0": xcam.models.load("xcam:efficientnet_lite0", weights="DEFAULT"), "r18": resnet}


# Of each net the layer before pooling, and one in the middle, where no gradient is constant. Those
# of EfficientNet-Lite0 are signed (a batch norm and a sum), those of the ResNet behind a ReLU.
LAYERS = {"lite0": ("model._bn1", "model._blocks.10"), "r18": ("model.layer4", "model.layer3")}


CLASSES = {"lite0": [285, 967], "r18": [285, 504]}
SCENES = [(name, layer) for name, layers in LAYERS.items() for layer in layers]


@pytest.fixture(params=SCENES, ids=str)
def scene(request, nets, photographs):
    """A net, the name of a layer, the photographs, and a class for each."""
    name, layer = request.param
    return nets[name], layer, photographs, CLASSES[name]


@pytest.fixture
def exact_scene(scene):
    """The same in float64."""
    net, layer, images, classes = scene
    return copy.deepcopy(net).double(), layer, images.double(), classes


def peer_picture(cam, scene, **arguments):
    """grad-cam's pictures, (B, H, W); made on a copy, since it changes gradients and hooks."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    net, layer, images, classes = scene
    net = copy.deepcopy(net).requires_grad_(False)
    for module in net.modules():
        if isinstance(module, nn.ReLU | nn.ReLU6):
            module.inplace = False  # else what it keeps of the layer changes behind its back
    targets = [ClassifierOutputTarget(c) for c in classes]
    with cam(net, [find_module(net, layer)[1]], **arguments) as extractor:
        return torch.from_numpy(extractor(images.clone().requires_grad_(), targets))


def picture(raw, size):
    def stretched(maps):
        maps = maps - maps.amin((1, 2), keepdim=True)
        return maps / (1e-7 + maps.amax((1, 2), keepdim=True))

    return stretched(imaging.resize(stretched(raw.relu()), size))


def explained(scene, method):
    net, layer, images, classes = scene
    e = xcam.explain(net, images, classes, method, layer=layer)
    return e.raw


def differences(a, b):
    """The largest difference in each image."""
    return (a - b).abs().amax((1, 2))


@pytest.mark.parametrize(
    ("method", "name"),
    [(GradCAM(), "GradCAM"), (HiResCAM(), "HiResCAM"), (LayerCAM(), "LayerCAM")],
)
def test_gradient_maps_are_those_of_grad_cam(peer, scene, method, name):
    ours = picture(explained(scene, method), SIZE)
    assert ours.amax((1, 2)).tolist() == pytest.approx([1, 1])
    assert differences(ours, peer_picture(getattr(peer, name), scene)).max() <= LIMIT


# Channel sums are divided by: on signed layers they cancel, and float32 leaves rounding noise.


def test_gradcam_plusplus_is_that_of_grad_cam_with_its_epsilon(peer, exact_scene):
    """grad-cam adds ε to the denominator, and outweighs it where gradients are small."""
    theirs = peer_picture(peer.GradCAMPlusPlus, exact_scene)
    ours = picture(explained(exact_scene, GradCAMPlusPlus(epsilon=1e-6)), SIZE)
    assert differences(ours, theirs).max() <= LIMIT
    published = picture(explained(exact_scene, GradCAMPlusPlus()), SIZE)
    assert differences(published, theirs).max() > 10 * LIMIT


def test_xgradcam_is_that_of_grad_cam_unless_bounded(peer, exact_scene):
    """Behind the ResNet's ReLUs the bound changes nothing."""
    theirs = peer_picture(peer.XGradCAM, exact_scene)
    ours = picture(explained(exact_scene, XGradCAM(bounded=False)), SIZE)
    assert differences(ours, theirs).max() <= LIMIT
    bounded = differences(picture(explained(exact_scene, XGradCAM()), SIZE), theirs)
    if exact_scene[1] in LAYERS["r18"]:
        assert bounded.max() <= LIMIT
    else:
        assert bounded.min() > 0.1


@pytest.mark.parametrize(
    ("method", "name"), [(EigenCAM(), "EigenCAM"), (EigenGradCAM(), "EigenGradCAM")]
)
def test_eigen_maps_are_those_of_grad_cam_up_to_their_sign(peer, scene, method, name):
    """grad-cam keeps whatever sign its SVD gives, and then cuts at zero."""
    raw, theirs = explained(scene, method), peer_picture(getattr(peer, name), scene)
    either = torch.stack([differences(picture(sign * raw, SIZE), theirs) for sign in (1, -1)])
    assert either.amin(0).max() <= LIMIT
    assert either.amax(0).min() > 0.1


@pytest.mark.parametrize(
    ("method", "name"), [(GradCAM(), "LayerGradCam"), (HiResCAM(), "LayerGradientXActivation")]
)
def test_raw_maps_are_those_of_captum(scene, method, name):
    from captum import attr

    net, layer, images, classes = scene
    attribution = getattr(attr, name)(net, find_module(net, layer)[1])
    theirs = attribution.attribute(images, torch.tensor(classes)).detach().sum(1)
    ours = explained(scene, method)
    span = ours.amax((1, 2)) - ours.amin((1, 2))
    assert (differences(ours, theirs) / span).max() <= LIMIT
