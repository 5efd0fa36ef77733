"""ABN: the published arithmetic by hand, the branch on each kind of net, and that it trains."""

import math

import pytest
import torch
import torchvision
from torch import nn
from trained import run_head

import xcam
from xcam.core import find_headed
from xcam.errors import LayerError, NotFittedError
from xcam.methods import ABN, LFICAM
from xcam.methods.trainable.abn import AttentionBranch
from xcam.models import Normalized
from xcam.models.cifar.densenet import CifarDenseNet
from xcam.models.cifar.resnet import CifarResNet
from xcam.models.cifar.resnext import CifarResNeXt
from xcam.models.cifar.wide_resnet import CifarWideResNet
from xcam.models.toy import GapNet, TokenNet


def pictures(count=2, size=16, channels=3):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(1))


def set_(module, value):
    with torch.no_grad():
        module.weight.copy_(torch.as_tensor(value).expand_as(module.weight))


def hand_made():
    """Two classes from one channel: T = (ReLU(x), ReLU(−x)), up to batch norm's ε."""
    branch = AttentionBranch(nn.Identity(), 1, 2, norm=False).eval()
    set_(branch.responses[1], torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
    set_(branch.attention[0], 1.0)
    set_(branch.auxiliary, torch.tensor([[1.0, 0.0], [2.0, 10.0]]).view(2, 2, 1, 1))
    return branch


class TestBranch:
    def test_branch_matches_a_hand_computed_example(self):
        """Each cell of A sums |x| over the cells around it; zeros beyond the border."""
        features = torch.tensor([[[[1.0, -2.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 4.0]]]])
        attention, auxiliary = hand_made()(features)
        sums = torch.tensor([[3.0, 3.0, 2.0], [3.0, 7.0, 6.0], [0.0, 4.0, 4.0]])
        assert torch.allclose(attention[0, 0], sums.sigmoid(), atol=1e-4)
        assert torch.allclose(auxiliary, torch.tensor([[5 / 9, 10 / 9 + 20 / 9]]), atol=1e-4)

    def test_no_convolution_has_a_bias(self):
        branch = AttentionBranch(nn.Identity(), 6, 4, norm=True)
        assert all(m.bias is None for m in branch.modules() if isinstance(m, nn.Conv2d))
        assert isinstance(branch.responses[0], nn.BatchNorm2d)
        assert isinstance(
            AttentionBranch(nn.Identity(), 6, 4, norm=False).responses[0], nn.Identity
        )


# The backbone for K classes, its images' side, the stage, whether BN follows the copy, the
# branch's parameters and its map's side.
zoo = torchvision.models
NETS = (
    (lambda k: CifarResNet(k, depth=110), 10, 32, "stage3", True, 1_295_572, 16),
    (lambda k: CifarResNet(k, depth=110), 100, 32, "stage3", True, 1_329_502, 16),
    (lambda k: CifarResNet(k, depth=20), 10, 32, "stage3", True, 206_676, 16),
    (lambda k: CifarDenseNet(k), 10, 32, "stage3", True, 280_796, 8),
    (lambda k: CifarResNeXt(k), 10, 32, "stage3", False, 26_257_620, 16),
    (lambda k: CifarWideResNet(k), 10, 32, "stage3", True, 27_870_292, 16),
    (lambda k: zoo.resnet18(num_classes=k), 10, 224, "layer4", True, 8_400_084, 14),
    (lambda k: zoo.resnet50(num_classes=k), 1000, 224, "layer4", True, 18_027_834, 14),
    (lambda k: zoo.densenet121(num_classes=k), 7, 224, "features.denseblock4", True, 2_167_424, 7),
)


class TestNet:
    @pytest.mark.parametrize(
        ("make", "classes", "size", "stage", "norm", "parameters", "side"), NETS
    )
    def test_where_it_is_put(self, make, classes, size, stage, norm, parameters, side):
        with torch.device("meta"):
            net = make(classes)
            given = None if norm else False  # as xcam's recipes give it for ResNeXt
            attached = ABN(branch_norm=given).attach(
                Normalized(net, (0.5,), (0.5,), input_size=size)
            )
            branch = find_headed(attached).head
            logits, (attention, auxiliary) = run_head(attached, torch.zeros(1, 3, size, size))
        assert attached.method == ABN(stage=stage, branch_norm=norm)
        assert sum(parameter.numel() for parameter in branch.parameters()) == parameters
        assert attention.shape == (1, 1, side, side)
        assert logits.shape == auxiliary.shape == (1, classes)
        assert {f"model.classifier.{name}" for name in net.state_dict()} < set(
            attached.state_dict()
        )

    def test_last_stage_reads_the_attended_features(self):
        torch.manual_seed(0)
        net = CifarResNet(depth=8).eval()
        attached = ABN().attach(Normalized(net, (0.5,), (0.5,), input_size=32))
        images = pictures(size=32)
        with torch.no_grad():
            logits, (attention, _) = run_head(attached, images)
            features = net.stage2(net.stage1(net.stem((images - 0.5) / 0.5)))
            wanted = net.fc(net.pool(net.stage3(features * (1 + attention))).flatten(1))
            assert torch.allclose(logits, wanted, atol=1e-5)
            assert attention.min() > 0
            assert attention.max() < 1
            assert torch.equal(attached.model.classifier(images), net(images))

    def test_branch_reads_the_features_before_the_stage(self):
        torch.manual_seed(0)
        net = CifarResNet(depth=8).eval()
        attached = ABN().attach(net)
        images = pictures(size=32)
        branch = find_headed(attached).head
        with torch.no_grad():
            _, found = run_head(attached, images)
            wanted = branch(net.stage2(net.stage1(net.stem(images))))
        assert all(map(torch.equal, found, wanted))

    def test_copied_stage_has_stride_1_and_new_weights(self):
        torch.manual_seed(0)
        net = CifarResNet(depth=20)
        net.stage3[0].branch[1].running_mean.fill_(3)
        net.requires_grad_(False)
        copied = ABN().attach(net).head.stage
        assert {m.stride for m in copied.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}
        assert (2, 2) in {m.stride for m in net.stage3.modules() if isinstance(m, nn.Conv2d)}
        pairs = zip(copied.named_parameters(), net.stage3.parameters(), strict=True)
        drawn = [(mine, given) for (_, mine), given in pairs if mine.ndim == 4]
        assert drawn
        assert not any(torch.equal(mine, given) for mine, given in drawn)
        assert all(parameter.requires_grad for parameter in copied.parameters())
        assert copied[0].branch[1].running_mean.eq(0).all()
        weight = copied[0].branch[0].weight  # 3x3, from 32 channels to 64
        assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.03)

    def test_parameters_that_no_module_draws_are_copied_as_they_are(self):
        """As ConvNeXt's `layer_scale`: there is no telling what to begin them with."""

        class Scaled(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = nn.Parameter(torch.full((4, 1, 1), 0.3))
                self.conv = nn.Conv2d(3, 4, 3, 2, 1)

            def forward(self, features):
                return self.scale * self.conv(features)

        net = nn.Sequential(
            nn.Conv2d(3, 3, 1), Scaled(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ).requires_grad_(False)
        copied = ABN(stage="1").attach(net).head.stage
        assert torch.equal(copied.scale, net[1].scale)
        assert copied.scale.requires_grad
        assert not torch.equal(copied.conv.weight, net[1].conv.weight)

    def test_loss_is_the_sum_of_both_cross_entropies(self):
        attached = ABN().attach(GapNet())
        images, labels = pictures(), torch.tensor([1, 3])
        logits, (_, auxiliary) = run_head(attached, images)
        wanted = 0
        for scores in (logits.softmax(1), auxiliary.softmax(1)):
            wanted = wanted - (scores[0, 1].log() + scores[1, 3].log()) / 2
        assert torch.allclose(ABN().loss(attached, images, labels)[0], wanted)

    def test_each_loss_trains_its_branch(self):
        """The auxiliary logits' weights get no gradient from the main head."""
        attached = ABN().attach(GapNet()).train()
        branch, images = find_headed(attached).head, pictures()
        logits = attached(images)
        weights = [branch.auxiliary.weight, branch.attention[0].weight]
        main = torch.autograd.grad(logits.square().sum(), weights, allow_unused=True)
        assert main[0] is None
        assert main[1].abs().sum() > 0
        both = torch.autograd.grad(ABN().loss(attached, images, torch.tensor([0, 1]))[0], weights)
        assert both[0].abs().sum() > 0

    def test_attention_and_both_losses_reach_the_backbone(self):
        """Each by itself has a gradient in the stem: the branch's input is not cut off."""
        attached = ABN().attach(GapNet()).train()
        stem = attached.classifier.features[0].weight
        images, labels = pictures(), torch.tensor([0, 1])
        logits, (attention, auxiliary) = run_head(attached, images)
        alone = [
            (attention * torch.rand(16, 16)).sum(),
            nn.functional.cross_entropy(auxiliary, labels),
            nn.functional.cross_entropy(logits, labels),
        ]
        parts = [torch.autograd.grad(loss, stem, retain_graph=True)[0] for loss in alone]
        assert all(gradient.abs().sum() > 0 for gradient in parts)
        (both,) = torch.autograd.grad(ABN().loss(attached, images, labels)[0], stem)
        assert torch.allclose(both, parts[1] + parts[2], atol=1e-6)

    def test_map_is_the_attention_for_any_target(self):
        attached = ABN().attach(GapNet())
        attached.fitted = True
        images = pictures()
        found = [xcam.explain(attached, images, target, "abn") for target in (0, 3, None)]
        with torch.no_grad():
            _, (attention, _) = run_head(attached, images)
        for explanation in found:
            assert torch.allclose(explanation.raw, attention[:, 0], atol=1e-6)
        assert found[0].method == ABN(stage="features.2", branch_norm=True)

    def test_stages_within_a_trunk(self):
        """The last one alone, since the trunk works at several resolutions."""

        def stage(before, after):
            return nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.Conv2d(after, after, 1))

        net = nn.Sequential()
        net.stem = nn.Conv2d(3, 4, 1)
        net.trunk = nn.Sequential(stage(4, 5), stage(5, 6))
        net.pool, net.flat = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        assert ABN().attach(net).method.stage == "trunk.1"
        assert LFICAM().attach(net).method.layer == "trunk.1"

    def test_another_stage(self):
        attached = ABN(stage="model.layer3").attach(
            xcam.models.load("torchvision:resnet18", num_classes=3)
        )
        attached.fitted = True
        assert attached.method.stage == "layer3"
        e = xcam.explain(attached, pictures(1, size=64), method=None)
        assert e.raw.shape == (1, 8, 8)  # before layer3, at an eighth of the image

    def test_checkpoint_restores_the_whole_net(self, tmp_path):
        torch.manual_seed(0)
        attached = ABN(branch_norm=False).attach(xcam.models.load("xcam:cifar_resnet", depth=8))
        attached.fitted = True
        xcam.save(attached, tmp_path / "net.safetensors")
        loaded = xcam.load(tmp_path / "net.safetensors")
        assert loaded.method == ABN(stage="stage3", branch_norm=False)
        images = pictures(size=32)
        maps = [xcam.explain(net, images, method=None).raw for net in (loaded, attached)]
        assert torch.equal(*maps)

    def test_refusals(self):
        pooling = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        with pytest.raises(LayerError, match=r"stage '1' with stride 1 does not keep the size"):
            ABN().attach(pooling)
        pooling[1] = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, padding=1))
        with pytest.raises(LayerError, match=r"stage '1' begins with an operation in place"):
            ABN().attach(pooling)
        with pytest.raises(LayerError, match=r"no stage of Sequential .*: stage="):
            ABN().attach(nn.Sequential(pooling[0], *pooling[2:]))
        with pytest.raises(LayerError, match=r"layer 'fc' has an input of shape \(1, 12\)"):
            ABN(stage="fc").attach(GapNet())
        with pytest.raises(LayerError, match=r"no stage of TokenNet"):
            ABN().attach(TokenNet())
        with pytest.raises(NotFittedError, match="abn needs a model with its head"):
            xcam.explain(GapNet(), pictures(), method="abn")


def test_training_learns_the_classes_by_both_heads():
    """Which of two grey values a picture has, in the noise."""

    def greys(count, seed):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(count) % 2
        noise = torch.rand(count, 3, 16, 16, generator=generator)
        return 0.5 * noise + 0.3 * labels.view(-1, 1, 1, 1), labels

    torch.manual_seed(0)
    net = Normalized(CifarResNet(2, depth=8), (0.4,), (0.2,), input_size=16)
    data = torch.utils.data.TensorDataset(*greys(64, 1))
    settings = {"name": "SGD", "lr": 0.05, "momentum": 0.9}
    trained = xcam.fit(net, data, "abn", epochs=4, batch_size=16, optimizer=settings)
    images, labels = greys(64, 2)
    with torch.no_grad():
        logits, (_, auxiliary) = run_head(trained.eval(), images)
    for scores in (logits, auxiliary):
        assert (scores.argmax(1) == labels).float().mean() > 0.95
    assert trained.method == ABN(stage="stage3", branch_norm=True)
