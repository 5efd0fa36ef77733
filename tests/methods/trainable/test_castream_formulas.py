"""CA-Stream's attention, queries and maps against their formulas, written down once more."""

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from nets import pictures
from torch import nn

import xcam
from xcam.core import find_headed
from xcam.methods import CAStream
from xcam.methods.trainable.castream_head import StreamBlock, average_project
from xcam.models.toy import GapNet

IMAGES = pictures(3, size=64)
NOTHING = "no value is positive, nothing speaks for the target"


def make_net(model=None, **settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = model or torchvision.models.resnet18(num_classes=7)
        net = CAStream(**settings).attach(model.eval())
    net.fitted = True
    return net


def read_maps(net, images=IMAGES):
    """What the classifier's layers give, by their names."""
    found, handles = {}, []
    for name in net.method.layers:
        module = net.classifier.get_submodule(name)
        note = lambda _m, _i, out, name=name: found.update({name: out.detach().clone()})  # noqa: E731
        handles.append(module.register_forward_hook(note))
    with torch.no_grad():
        net.classifier(images)
    for handle in handles:
        handle.remove()
    return [found[name] for name in net.method.layers]


def attend(features, query):
    """One block without its projection, position by position: scores (h, w) and F a (d,)."""
    d, height, width = features.shape
    scores = torch.stack([features[:, i, j] @ query for i in range(height) for j in range(width)])
    scores = scores / d**0.5
    weights = scores.exp() / scores.exp().sum()
    cells = features.reshape(d, -1)
    return scores.reshape(height, width), sum(w * cells[:, k] for k, w in enumerate(weights))


class TestBlock:
    def test_attention_of_a_map_with_known_products(self):
        features = torch.tensor([[[[1.0, 0.0], [3.0, 1.0]], [[2.0, 0.0], [0.0, -1.0]]]])
        block = StreamBlock(nn.Identity(), nn.Identity(), nn.Identity())
        scores, query = block(features, torch.tensor([[2.0, 1.0]]))
        s = torch.tensor([4.0, 0.0, 6.0, 1.0]) / 2**0.5
        torch.testing.assert_close(scores, s.reshape(1, 1, 2, 2))
        a = s.exp() / s.exp().sum()
        torch.testing.assert_close(query[0], features[0].flatten(1) @ a)

    def test_query_of_zeros_is_average_pooling_and_the_projection(self):
        features, project = torch.randn(2, 6, 3, 5), nn.Linear(6, 4)
        _, query = StreamBlock(nn.Identity(), nn.Identity(), project)(features, torch.zeros(2, 6))
        torch.testing.assert_close(query, project(features.mean((2, 3))))

    def test_heads_attend_apart_at_the_scale_of_all_channels(self):
        features, query = torch.randn(2, 6, 3, 5), torch.randn(2, 6)
        one = StreamBlock(nn.Identity(), nn.Identity(), nn.Identity())
        scores, found = StreamBlock(nn.Identity(), nn.Identity(), nn.Identity(), 2)(features, query)
        for head, part in enumerate((slice(0, 3), slice(3, 6))):
            own, wanted = one(features[:, part], query[:, part] / 2**0.5)
            torch.testing.assert_close(found[:, part], wanted)
            torch.testing.assert_close(scores[:, head], own[:, 0])


class TestStream:
    def test_logits_are_those_of_the_last_query_in_place_of_the_pooled_features(self):
        net = make_net()
        maps, stream = read_maps(net), net.head
        for row in range(3):
            query = stream.token[0, 0]
            for features, block in zip(maps, stream.blocks, strict=True):
                _, attended = attend(features[row], query)
                query = block.project.weight @ attended + block.project.bias
            wanted = net.classifier.fc(query)
            torch.testing.assert_close(net(IMAGES)[row], wanted, rtol=1e-4, atol=1e-5)

    def test_token_of_zeros_and_identity_give_the_classifiers_own_logits(self):
        """The final block with q = 0 and W = 1 is the average pooling that it stands for."""
        net = make_net(variant="final")
        with torch.no_grad():
            net.head.token.zero_()
            nn.init.eye_(net.head.blocks[0].project.weight)
            net.head.blocks[0].project.bias.zero_()
        torch.testing.assert_close(net(IMAGES), net.classifier(IMAGES))

    def test_convnext_normalizes_the_query_before_its_classifier(self):
        model = torchvision.models.convnext_tiny(num_classes=4)
        net = make_net(model, placement="released")
        maps = read_maps(net)
        assert [m.shape[1] for m in maps] == [96, 192, 384, 768]
        query = net.head.token[:, 0].expand(3, -1)
        for features, block in zip(maps, net.head.blocks, strict=True):
            weights = (torch.einsum("bdhw,bd->bhw", features, query) / query.shape[1] ** 0.5).exp()
            weights = weights / weights.sum((1, 2), keepdim=True)
            query = block.project(torch.einsum("bdhw,bhw->bd", features, weights))
        wanted = net.classifier.classifier(query[:, :, None, None])
        torch.testing.assert_close(net(IMAGES), wanted, rtol=1e-4, atol=1e-5)

    def test_maps_are_the_attention_of_any_block(self):
        net = make_net()
        maps, query = read_maps(net), net.head.token[0, 0]
        for index, features in enumerate(maps):
            scores, attended = attend(features[1], query)
            found = xcam.explain(net, IMAGES, 2, map="scores", block=index).raw[1]
            torch.testing.assert_close(found, scores, rtol=1e-4, atol=1e-5)
            raw = xcam.explain(net, IMAGES, 2, block=index).raw[1]
            torch.testing.assert_close(raw, scores.flatten().softmax(0).reshape(scores.shape))
            project = net.head.blocks[index].project
            query = project.weight @ attended + project.bias
        torch.testing.assert_close(xcam.explain(net, IMAGES, 5).raw[1], raw)
        assert raw.shape == (2, 2)

    def test_gradcam_explains_the_logits_of_the_stream(self):
        net = make_net()
        last = read_maps(net)[-1].requires_grad_()
        query = net.head.token[:, 0].expand(3, -1)
        for features, block in zip([*read_maps(net)[:-1], last], net.head.blocks, strict=True):
            _, query = block(features, query)
        (gradient,) = torch.autograd.grad(net.classifier.fc(query)[:, 3].sum(), last)
        wanted = (gradient.mean((2, 3), keepdim=True) * last).sum(1)
        e = xcam.explain(net, IMAGES, 3, "gradcam", relu=False)
        assert e.method.layer == "classifier.layer4"
        torch.testing.assert_close(e.raw, wanted.detach())
        assert {note.text for note in e.notes} <= {NOTHING}

    def test_gradcam_does_not_see_the_attention(self):
        """Σ_p ∂a_p/∂s = 0, so its weights are those of CAM through the last projection."""
        net = make_net()
        last = read_maps(net)[-1]
        weights = net.classifier.fc.weight[3] @ net.head.blocks[-1].project.weight
        wanted = torch.einsum("d,bdhw->bhw", weights, last) / last[0, 0].numel()
        found = xcam.explain(net, IMAGES, 3, "gradcam", relu=False).raw
        torch.testing.assert_close(found, wanted.detach(), rtol=1e-4, atol=1e-6)


class TestVariants:
    def test_learned_keys_and_values(self):
        features, query = torch.randn(2, 5, 2, 3), torch.randn(2, 4)
        key, value, project = nn.Linear(5, 4), nn.Linear(5, 4), nn.LayerNorm(4)
        scores, found = StreamBlock(key, value, project)(features, query)
        cells = features.flatten(2).transpose(1, 2)
        wanted = (key(cells) @ query[:, :, None])[..., 0] / 2
        torch.testing.assert_close(scores.flatten(1), wanted)
        attended = (wanted.softmax(1)[..., None] * value(cells)).sum(1)
        torch.testing.assert_close(found, project(attended))

    def test_feedforward_follows_the_last_two_stages(self):
        net = make_net(variant="v2")
        features, block = read_maps(net), net.head.blocks
        query = net.head.token[:, 0].expand(3, -1)
        for f, b in zip(features, block, strict=True):
            s = torch.einsum("bdhw,bd->bhw", f, query) / f.shape[1] ** 0.5
            a = s.flatten(1).softmax(1).reshape(s.shape)
            hidden = b.project(torch.einsum("bdhw,bhw->bd", f, a))
            query = b.feedforward[2](F.gelu(b.feedforward[0](hidden)))
        assert net.method.layers == ("layer3", "layer4")
        torch.testing.assert_close(net(IMAGES), net.classifier.fc(query), rtol=1e-4, atol=1e-5)

    def test_shared_projection_is_the_next_stages_averaged_convolutions(self):
        net = make_net(variant="shared")
        layer2, query = net.classifier.layer2, torch.randn(2, 64)

        def mean(convolution):
            return convolution.weight.mean((2, 3))

        first, second = layer2[0], layer2[1]
        found = query @ mean(first.conv1).T @ mean(first.conv2).T
        found = found + query @ mean(first.downsample[0]).T
        found = found @ mean(second.conv1).T @ mean(second.conv2).T
        names = net.head.convolutions[1]  # behind layer1
        convolutions = [net.classifier.get_submodule(name) for name in names]
        torch.testing.assert_close(average_project(convolutions, query), found)
        assert names[0] == "layer2.0.conv1"
        assert net.head.convolutions[-1] == ()
        assert [name for name, _ in net.head.named_parameters()] == ["token"]
        assert net(IMAGES).isfinite().all()


def test_token_and_projections_are_drawn_as_published():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        resnet = CAStream().attach(torchvision.models.resnet18()).head
        bound = (6 / (512 + 512)) ** 0.5
        largest = float(resnet.blocks[4].project.weight.detach().abs().max())
        assert bound * 0.99 < largest <= bound
        assert resnet.blocks[0].project.bias.abs().max() > 0
        convnext = CAStream().attach(torchvision.models.convnext_tiny()).head
        assert float(convnext.blocks[3].project.weight.detach().std()) == pytest.approx(
            0.02, rel=0.02
        )
        assert not convnext.blocks[3].project.bias.any()
        tokens = torch.cat([CAStream().attach(GapNet()).head.token.flatten() for _ in range(99)])
        fixed = CAStream(variant="v4").attach(torchvision.models.resnet18()).head.token
    assert tokens.mean().item() == pytest.approx(1.0, abs=0.1)
    assert tokens.std().item() == pytest.approx(1.0, abs=0.1)
    assert fixed.mean().item() == pytest.approx(0.0, abs=0.15)


def test_copies_hold_the_stream():
    net = make_net()
    other = copy.deepcopy(net)
    torch.testing.assert_close(other(IMAGES), net(IMAGES))
    assert find_headed(other).head.pooled == ("avgpool", "output")
