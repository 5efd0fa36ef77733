"""Where a head goes: nets that share modules, nets of one size, and layers that will not do."""

import pytest
import torch
import torchvision
from nets import pictures
from torch import nn
from torch.utils.data import TensorDataset

import xcam
from xcam.errors import LayerError
from xcam.methods.trainable.backbone import Backbone
from xcam.methods.trainable.taps import Place
from xcam.models import Normalized

HEADS = ["lficam", "abn", "lcam_fm", "lcam_img", "calm"]


class Shared(nn.Module):
    """Three convolutions, as wide as told, one ReLU and one pooling for all of them."""

    def __init__(self, *widths, inplace=False):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1)
            self.conv2 = nn.Conv2d(widths[0], widths[1], 3, padding=1)
            self.conv3 = nn.Conv2d(widths[1], widths[2], 3, padding=1)
            self.relu, self.pool = nn.ReLU(inplace), nn.MaxPool2d(2)
            self.fc = nn.Linear(widths[2], 3)

    def forward(self, images):
        early = self.pool(self.relu(self.conv1(images)))
        late = self.pool(self.relu(self.conv2(early)))
        return self.fc(self.relu(self.conv3(late)).mean((2, 3)))


class Fixed(nn.Sequential):
    """It takes 16x16 images and no others."""

    def __init__(self):
        super().__init__(
            *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(8 * 4 * 4, 3)),
        )


class Recurrent(nn.Module):
    """One block for all of it, run more often in training."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)

    def forward(self, images):
        features = self.stem(images)
        for _ in range(3):
            features = self.block(features).relu()
        for _ in range(2 if self.training else 1):
            features = self.last(features).relu()
        return self.fc(features.mean((2, 3)))


def fitted(net, method, size=16, **arguments):
    data = TensorDataset(pictures(4, size=size), torch.tensor([0, 1, 2, 0]))
    return xcam.fit(net, data, method, **{"epochs": 1, "batch_size": 4} | arguments)


@pytest.mark.parametrize("head", HEADS)
class TestEveryHead:
    @pytest.mark.parametrize("widths", [(4, 6, 8), (4, 4, 4)])
    @pytest.mark.parametrize("inplace", [False, True])
    def test_head_on_a_shared_relu_reads_the_last_convolution(
        self, head, widths, inplace, tmp_path
    ):
        """As where the ReLU is a function, it reads the last convolution."""
        net = fitted(Shared(*widths, inplace=inplace), head)
        assert "conv3" in net.method.parameters().values()
        maps = xcam.explain(net, pictures(size=16)).maps
        assert maps.isfinite().all()
        xcam.save(net, tmp_path / "net.safetensors")
        again = xcam.load(tmp_path / "net.safetensors", model=Shared(*widths, inplace=inplace))
        assert torch.equal(xcam.explain(again, pictures(size=16)).maps, maps)

    @pytest.mark.parametrize("normalized", [False, True])
    def test_net_of_one_unstated_size_gets_it_from_the_training_images(
        self, head, normalized, tmp_path
    ):
        def bare():
            return Normalized(Fixed(), (0.5,), (0.5,)) if normalized else Fixed()

        with pytest.raises(ValueError, match=r"Fixed does not run.*Normalized.*input_size=\(H, W"):
            xcam.get_method(head)().attach(bare())
        net = fitted(bare(), head)
        xcam.save(net, tmp_path / "net.safetensors")
        again = xcam.load(tmp_path / "net.safetensors", model=bare())
        assert again.input_size == net.input_size == (16, 16)
        images = pictures(size=16)
        assert torch.equal(xcam.explain(again, images).raw, xcam.explain(net, images).raw)

    def test_error_of_a_net_that_asserts_its_size_is_shown(self, head):
        transformer = torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 16, num_classes=3)
        with pytest.raises(ValueError, match=r"does not run .* \(Wrong image height! Expected 32"):
            xcam.get_method(head)().attach(transformer)

    def test_layer_called_several_times_is_refused(self, head):
        name = "stage" if head == "abn" else "layer"
        sentence = "'block' is called 3 times in a forward pass, and .* once, such as 'last'"
        with pytest.raises(LayerError, match=sentence):
            xcam.get_method(head)(**{name: "block"}).attach(Recurrent())

    def test_layer_called_more_often_in_training_is_refused_except_by_lcam_and_calm(self, head):
        """L-CAM's classifier is always in eval mode; CALM ends the pass at the first call."""
        net = xcam.get_method(head)().attach(Recurrent())
        assert "last" in net.method.parameters().values()
        labels = torch.tensor([0, 1])
        if head in ("calm", "lcam_fm", "lcam_img"):
            assert net.method.loss(net.train(), pictures(), labels)[0].isfinite()
            return
        with pytest.raises(LayerError, match="'last' is called 2 times in this forward pass"):
            net.method.loss(net.train(), pictures(), labels)[0]


class TestBackbone:
    def test_module_with_several_names_is_refused_by_each_of_them(self):
        relu = nn.ReLU()
        net = nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 5, 3), relu, nn.Flatten())
        backbone = Backbone(net)
        for name in ("1", "3"):
            with pytest.raises(LayerError, match=f"'{name}' is called 2 times.*such as '2'"):
                backbone.shape(Place(name))

    def test_default_layer_skips_a_convolution_called_twice(self):
        twice = nn.Conv2d(4, 4, 3)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), twice, twice, nn.Flatten())
        assert Backbone(net).last_stage() == Backbone(net).default_layer() == "1"

    def test_shape_of_the_blank_image(self):
        given = Normalized(Shared(4, 4, 4), (0.5,), (0.5,), input_size=(24, 32))
        unsaid = Shared(4, 4, 4)
        unsaid.input_size = 784  # the net's own, and nothing that it says to anybody
        for net, size in ((given, (24, 32)), (unsaid, (224, 224))):
            assert Backbone(net).blank.shape[2:] == size
            assert Backbone(net, torch.ones(1, 3, 12, 20)).blank.shape == (1, 3, 12, 20)

    @pytest.mark.parametrize("size", [784, (3, 16, 16), None])
    def test_input_size_of_the_bare_classifier_is_not_saved(self, size, tmp_path):
        model = Shared(4, 4, 4)
        model.input_size = size
        for net, expected in (
            (fitted(model, "lcam_fm"), (16, 16)),
            (xcam.get_method("lcam_fm")().attach(model), None),
        ):
            xcam.save(net, tmp_path / "net.safetensors")
            again = xcam.load(tmp_path / "net.safetensors", model=Shared(4, 4, 4))
            assert again.input_size == net.input_size == expected

    def test_layer_depends_on_the_size_of_the_images(self):
        """A ResNet's last stage gives no map of images of 32 pixels, for heads as for Grad-CAM."""
        net = torchvision.models.resnet18()
        backbone = Backbone(net, torch.ones(1, 3, 32, 32))
        assert backbone.default_layer() == "layer3"
        assert backbone.last_stage() == "layer3"
        with pytest.raises(LayerError, match=r"'layer4' has an output of shape \(1, 512, 1, 1"):
            backbone.shape(Place("layer4"))
