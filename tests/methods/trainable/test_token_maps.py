"""L-CAM and CALM on tokens: what is masked by hand, a step of training, files."""

import pytest
import torch
import torch.nn.functional as F
from nets import pictures
from torch.testing import assert_close
from torch.utils.data import TensorDataset

import xcam
from xcam.core import find_headed
from xcam.engine.layout import Layout
from xcam.methods import ABN, CALM, LCAMFm
from xcam.models.toy import TokenNet

IMAGES = torch.rand(4, 3, 8, 12, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 1])
DATA = TensorDataset(IMAGES, LABELS)


def make_class_token_net():
    return TokenNet(width=6, heads=2, num_classes=3, depth=1)


def make_timm_net(name, **options):
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model(name, img_size=32, num_classes=3, **options).eval()


NETS = {  # and the map's size, and that of the images
    "class token": (make_class_token_net, (2, 3), IMAGES),
    "registers": (
        lambda: make_timm_net(
            "vit_small_patch14_reg4_dinov2", patch_size=16, embed_dim=16, num_heads=2, depth=1
        ),
        (2, 2),
        pictures(4, 3, 32),
    ),
    "channels last": (
        lambda: make_timm_net(
            "swin_tiny_patch4_window7_224",
            **{"window_size": 2, "embed_dim": 8, "num_heads": (1, 2), "depths": (1, 1)},
        ),
        (4, 4),
        pictures(4, 3, 32),
    ),
}


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("method", ["lcam_fm", "lcam_img", "calm"])
def test_head_on_tokens_trains_and_is_loaded(method, kind, tmp_path):
    make, size, images = NETS[kind]
    data = TensorDataset(images, LABELS)
    net = xcam.fit(make(), data, method, epochs=1, batch_size=4)
    before = xcam.explain(make_untrained(make, method, images), images, 1, method=method).raw
    found = xcam.explain(net, images, 1)
    assert found.method.spec.name == method
    assert found.raw.shape == (4, *size)
    assert not torch.equal(found.raw, before)
    xcam.save(net, tmp_path / "net.safetensors")
    again = xcam.load(tmp_path / "net.safetensors", make())
    assert torch.equal(xcam.explain(again, images, 1).raw, found.raw)


def make_untrained(make, method, images):
    torch.manual_seed(0)
    net = xcam.get_method(method)().attach(make(), images[:1])
    find_headed(net).fitted = True
    return net


def test_patches_are_masked_and_the_class_token_is_not():
    torch.manual_seed(0)
    net = LCAMFm(labels="given").attach(make_class_token_net(), IMAGES[:1])
    headed, classifier = find_headed(net), make_class_token_net()
    block = classifier.blocks[0]
    assert headed.method.layer == "blocks.0.norm1"
    normed = []
    block.norm1.register_forward_hook(lambda _, __, output: normed.append(output))
    classifier(IMAGES)
    features = normed[0][:, 1:].transpose(1, 2).reshape(4, 6, 2, 3)
    masks = headed.head(features).sigmoid()
    own = masks[torch.arange(4), LABELS].flatten(1)
    weights = torch.cat([torch.ones(4, 1), own], 1)[..., None]
    block.norm1.register_forward_hook(lambda _, __, output: output * weights)
    logits = classifier(IMAGES)
    method = LCAMFm(labels="given", tv_weight=0, area_weight=0, ce_weight=1)
    found, _ = method.loss(net, IMAGES, LABELS)
    assert_close(found, F.cross_entropy(logits, LABELS))


def test_probability_of_the_class_is_the_sum_over_the_patches():
    torch.manual_seed(0)
    net = CALM().attach(make_class_token_net(), IMAGES[:1])
    headed, classifier = find_headed(net), make_class_token_net()
    normed = []
    classifier.blocks[0].norm1.register_forward_hook(lambda _, __, out: normed.append(out))
    classifier(IMAGES)
    patches, head = normed[0][:, 1:], headed.head
    weight, bias = head.conv_last.weight[:, :, 0, 0], head.conv_last.bias
    likelihood = (patches @ weight.T + bias).softmax(2)
    active = F.softplus(patches @ head.attention.weight[:, :, 0, 0].T + head.attention.bias)
    expected = (likelihood * active / active.sum(1, keepdim=True)).sum(1)
    assert_close(net(IMAGES).exp(), expected)


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (Layout("NCHW", (2, 3)), (2, 5, 2, 3)),
        (Layout("NHWC", (2, 3)), (2, 2, 3, 5)),
        (Layout("NCL", (2, 3)), (2, 5, 6)),
        (Layout("tokens", (2, 3), 2), (2, 8, 5)),
        (Layout("tokens", (2, 3), 1, (3, 0, 5, 1, 2, 4)), (2, 7, 5)),
    ],
    ids=str,
)
def test_mask_is_spread_as_the_map_is_read(layout, shape):
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(2, 1, 2, 3, generator=torch.Generator().manual_seed(1))
    masked = tensor * layout.spread(mask)
    assert_close(layout.read(masked), layout.read(tensor) * mask)
    assert torch.equal(masked[:, : layout.prefix], tensor[:, : layout.prefix])


def test_head_that_needs_a_feature_map_still_refuses_tokens():
    with pytest.raises(xcam.XcamError, match="convolutional net"):
        ABN().attach(make_class_token_net(), IMAGES[:1])
