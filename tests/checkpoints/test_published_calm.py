"""Nets of CALM's published code: files in the form that it saves, and what they compute."""

import pytest
import torch
import torchvision
from torch import nn

import xcam
from xcam.checkpoints import import_calm
from xcam.errors import FileFormatError
from xcam.methods import CALM

CLASSES = 4


class Released(nn.Module):
    """The published ResNet-18, and what it computes, written down once more."""

    def __init__(self, large, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            trunk = torchvision.models.resnet18()
            self.conv1, self.bn1 = trunk.conv1, trunk.bn1
            for index in (1, 2, 3, 4):
                setattr(self, f"layer{index}", getattr(trunk, f"layer{index}"))
            self.conv_last = nn.Conv2d(512, CLASSES, 1)
            self.attention = nn.Sequential(nn.Conv2d(512, 1, 1), nn.ReLU())
            nn.init.normal_(self.attention[0].weight, std=0.005)
            nn.init.constant_(self.attention[0].bias, 0.02)
            for buffer in self.buffers():
                if buffer.is_floating_point():
                    buffer.uniform_(0.5, 1.5)
        for stage in (self.layer3, self.layer4) if large else (self.layer4,):
            for convolution in (stage[0].conv1, stage[0].downsample[0]):
                convolution.stride = (1, 1)

    def forward(self, images):
        stem = torch.max_pool2d(self.bn1(self.conv1(images)).relu(), 3, 2, 1)
        found = self.layer4(self.layer3(self.layer2(self.layer1(stem))))
        activation = self.attention(found)
        prior = activation / activation.sum((2, 3), keepdim=True)
        return self.conv_last(found), self.conv_last(found).softmax(1) * prior


def save(net, path, prefix="", **more):
    state = {f"{prefix}{name}": tensor for name, tensor in net.state_dict().items()}
    torch.save({"architecture": "resnet18", "epoch": 39, "state_dict": state, **more}, path)


def model(large=False, **settings):
    settings = {"depth": 18, "num_classes": CLASSES, "large_feature_map": large} | settings
    return xcam.models.load("xcam:calm_resnet", **settings)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "last_checkpoint.pth.tar"


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("large", [False, True])
def test_values_are_those_of_the_published_net(file, large, prefix):
    released = Released(large).eval()
    save(released, file, prefix)
    net, report = import_calm(file, model(large))
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    f, joint = released(net.normalize(images))
    torch.testing.assert_close(net(images).exp(), joint.sum((2, 3)))
    for y in range(CLASSES):
        torch.testing.assert_close(xcam.explain(net, images, y).raw, joint[:, y])
        vanilla = xcam.explain(net, images, y, map="vanilla").raw
        torch.testing.assert_close(vanilla, f[:, y])
    assert joint.shape[2:] == ((8, 8) if large else (4, 4))
    assert set(report["file"]) == {f"{name}" for name in released.state_dict()}
    assert (report["net"] != "").all()


def test_settings_are_those_of_the_published_code(file):
    save(Released(False), file)
    net, _ = import_calm(file, model())
    assert (net.method.prior, net.method.normalizer_gradient) == ("relu", "detached")
    assert net.fitted
    assert not net.training
    other, _ = import_calm(file, model(), loss="cam", prior="softplus", epsilons="released")
    assert (other.method.objective, other.method.map) == ("cam", "vanilla")
    assert (other.method.prior, other.method.epsilons) == ("softplus", "released")


def test_baseline_gives_the_means_of_its_class_activations(file):
    released = Released(False).eval()
    save(released, file)
    net, _ = import_calm(file, model(), loss="cam")
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(net(images), released(net.normalize(images))[0].mean((2, 3)))


def test_nets_of_another_stride_are_refused(file):
    save(Released(False), file)
    plain = xcam.models.load("torchvision:resnet18", num_classes=CLASSES)
    with pytest.raises(ValueError, match=r"ResNet has stride 2, .*'xcam:calm_resnet', depth=…"):
        import_calm(file, plain)


def test_files_that_do_not_fit_are_refused(file):
    released = Released(False)
    save(released, file)
    with pytest.raises(FileFormatError, match=r"are no CALM of this ResNet: .*head\.conv_last"):
        import_calm(file, model(num_classes=5))
    with pytest.raises(FileFormatError, match="no CALM of this ResNet: they lack"):
        import_calm(file, model(depth=34))
    with torch.no_grad():
        released.conv_last.weight[0] = float("nan")
    save(released, file)
    with pytest.raises(FileFormatError, match=r"512 of the 2048 values of 'conv_last\.weight'"):
        import_calm(file, model())
    with pytest.raises(TypeError, match="calm has no parameter 'priors'"):
        import_calm(file, model(), priors="relu")


def test_given_model_is_left_as_it_was_and_the_net_comes_back(file, tmp_path):
    save(Released(True), file)
    given = model(True)
    before = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    net, _ = import_calm(file, given)
    assert all(torch.equal(tensor, before[name]) for name, tensor in given.state_dict().items())
    xcam.save(net, tmp_path / "net.safetensors")
    again = xcam.load(tmp_path / "net.safetensors")
    images = torch.rand(1, 3, 64, 64)
    assert isinstance(again.method, CALM)
    assert torch.equal(again(images), net(images))
