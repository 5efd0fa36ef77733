"""What is wrong is said in a sentence, before the first step where that is possible."""

import math
from collections import namedtuple

import pytest
import torch
from nets import unchanged
from torch import nn
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)
from torchvision.models import VisionTransformer
from trainings import CLASSES, Net, Noisy, plain

import xcam
from xcam.errors import LayerError, ModelOutputError, UnknownNameError


class Endless(IterableDataset):
    def __iter__(self):
        return iter(Noisy())


class Bytes(Noisy):
    def __getitem__(self, index):
        return (self.images[index] * 255).byte(), 0


class Unlabelled(Noisy):
    def __getitem__(self, index):
        return self.images[index]


class Far(Noisy):
    """A label out of range, where no first look finds it."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image, CLASSES if index == 7 else label


Splits = namedtuple("Splits", "train validation test")
IMAGES, LABELS = Noisy(6).images, torch.zeros(6).long()
WRONG = [
    ({"epochs": 0}, ValueError, "epochs must be an int of at least 1, got 0"),
    ({"epochs": 1.5}, TypeError, "epochs must be an int of at least 1, got 1.5"),
    ({"batch_size": 0}, ValueError, "batch_size must be an int of at least 1, got 0"),
    ({"accumulate": 0}, ValueError, "accumulate must be an int of at least 1, got 0"),
    ({"accumulate": 7}, ValueError, "batch_size=6 is less than an image for each of 7 parts"),
    ({"workers": -1}, ValueError, "workers must be an int of at least 0, got -1"),
    ({"keep_every": 0}, ValueError, "keep_every must be an int of at least 1"),
    ({"seed": -1}, ValueError, "seed must be an int of at least 0, got -1"),
    ({"label_smoothing": 1.0}, ValueError, "label_smoothing must be at least 0 and below 1"),
    ({"label_smoothing": "0.1"}, TypeError, "label_smoothing must be a number, got '0.1'"),
    ({"save_minutes": "5"}, TypeError, "save_minutes must be a number, got '5'"),
    ({"save_minutes": -1}, ValueError, "save_minutes must be at least 0, got -1"),
    ({"save_minutes": math.nan}, ValueError, "save_minutes must be at least 0, got nan"),
    ({"clip": "1"}, TypeError, "clip must be a number, got '1'"),
    ({"clip": 0.0}, ValueError, "clip must be a norm above 0 or None, got 0.0"),
    ({"precision": "half"}, ValueError, "precision must be 'full', 'bf16' or 'fp16', got 'half'"),
    ({"device": "abacus"}, ValueError, "device 'abacus' cannot be used here"),
    ({"criterion": "mse"}, TypeError, "criterion must be a callable"),
    ({"criterion": lambda logits, labels: logits}, ValueError, "the loss must be a scalar"),
    ({"mix": {"mixip": 0.2}}, TypeError, "mix has no argument 'mixip': did you mean mixup"),
    ({"mix": {"mixup": 0}}, ValueError, "mixup must be a number above 0, got 0"),
    ({"ema": {"decay": 1.0}}, ValueError, "decay must be at least 0 and below 1, got 1.0"),
    ({"ema": {"decay": "0.9"}}, TypeError, "decay must be a number, got '0.9'"),
    ({"ema": {"each": 2}}, TypeError, "ema has no argument 'each'"),
    ({"optimizer": "SGD"}, TypeError, "optimizer must be a mapping with a name"),
    ({"optimizer": {"name": "SDG"}}, UnknownNameError, "no optimizer is called 'SDG'.*SGD"),
    ({"optimizer": {"name": "LBFGS"}}, UnknownNameError, "no optimizer is called 'LBFGS'"),
    ({"optimizer": {"name": "SparseAdam"}}, UnknownNameError, "no optimizer is called"),
    ({"optimizer": {"name": "SGD", "lr": "abc"}}, TypeError, r"SGD: .* \(given .*'abc'"),
    ({"optimizer": {"name": "SGD", "momentun": 1}}, TypeError, "'momentun': did you mean momentum"),
    ({"optimizer": {"name": "SGD", "lr": -1}}, ValueError, "SGD: Invalid learning rate: -1"),
    (
        {"schedule": {"name": "StepLRs"}},
        UnknownNameError,
        "no schedule is called 'StepLRs'.*StepLR",
    ),
    ({"schedule": {"name": "StepLR"}}, TypeError, "schedule StepLR: .*'step_size'"),
    ({"schedule": {"name": "ExponentialLR", "gamma": 1, "per": "day"}}, ValueError, "per must be"),
    ({"schedule": {"name": "ExponentialLR", "gamma": 1, "warmup": 0.5}}, ValueError, "warmup must"),
    (
        {"schedule": {"name": "ExponentialLR", "gamma": 1, "warmup": 1, "warmup_factor": "0.1"}},
        TypeError,
        "warmup_factor must be a number, got '0.1'",
    ),
    (
        {"schedule": {"name": "OneCycleLR", "max_lr": 1, "total_steps": 2}, "epochs": 3},
        ValueError,
        "OneCycleLR is made for 2 steps, and 3 epochs take 3",
    ),
    (
        {
            "schedule": {"name": "OneCycleLR", "max_lr": 1, "total_steps": 2, "warmup": 1},
            "epochs": 4,
        },
        ValueError,
        "made for 3 steps, and 4 epochs take 4",
    ),
    ({"groups": {"fc": {"lr_factor": "10"}}}, TypeError, "lr_factor must be a number, got '10'"),
    ({"groups": {"fcc": {"lr": 1}}}, ValueError, "no trainable parameter matches 'fcc'.*fc.weight"),
    ({"groups": {"fc": {"rl": 1}}}, TypeError, "'fc' for SGD has no argument 'rl'"),
    ({"groups": {"(": {"lr": 1}}}, ValueError, "'\\(' is no regular expression"),
    ({"epoch": 3}, TypeError, "fit has no argument 'epoch': did you mean epochs"),
    ({"method": "gradcamm"}, UnknownNameError, "no method 'gradcamm'"),
    ({"data": Endless()}, TypeError, "data must be a data set with a length.*got Endless"),
    ({"data": []}, ValueError, "data holds no images"),
    ({"data": None}, TypeError, "data must be a data set"),
    ({"data": Splits(Noisy(), None, None)}, TypeError, "give one of them, such as splits.train"),
    ({"data": Bytes()}, TypeError, r"a batch \(1, 3, 8, 8\) of torch.uint8"),
    (
        {"data": Unlabelled()},
        TypeError,
        "got an image without a label|the image a .C, H, W. tensor",
    ),
    (
        {"data": TensorDataset(IMAGES, torch.zeros(6))},
        TypeError,
        "image 0 of data: the label must be an integer",
    ),
    ({"data": TensorDataset(IMAGES, torch.full((6,), 3))}, ValueError, "label 3 is out of range"),
    ({"data": TensorDataset(IMAGES[:, :2], LABELS)}, ValueError, "the model fails"),
    (
        {"data": TensorDataset(IMAGES.double(), LABELS)},
        ValueError,
        r"fails on images of shape \(3, 8, 8\) and torch.float64; .*the type that it takes",
    ),
    ({"data": Far(12)}, ValueError, "label 3 is out of range: the model has 3 classes, 0 to 2"),
    ({"validation": TensorDataset(IMAGES, torch.full((6,), 9))}, ValueError, "label 9 is out of"),
    ({"validation": TensorDataset(IMAGES[:, :2], LABELS)}, ValueError, "the model fails on images"),
    ({"test": Noisy(6)}, ValueError, "the result on test is a file: give out="),
    ({"board_path": 3, "data": []}, ValueError, "data holds no images"),
]


class TestBadInput:
    @pytest.mark.parametrize(("arguments", "error", "sentence"), WRONG)
    def test_bad_argument_is_refused_with_its_message(self, arguments, error, sentence):
        arguments = {"data": Noisy(6), "batch_size": 6, **arguments}
        model = Net(plain=True)
        with unchanged(model), pytest.raises(error, match=sentence):
            plain(arguments.pop("data"), model, **arguments)

    def test_loader_that_chooses_images_is_refused(self):
        data = Noisy(6)
        weighted = WeightedRandomSampler(torch.ones(6), 6)
        for loader in (
            DataLoader(data, sampler=weighted),
            DataLoader(data, batch_sampler=[[0, 1], [2]]),
            DataLoader(data, batch_size=None),
        ):
            with pytest.raises(ValueError, match="data takes its images by a"):
                plain(loader, batch_size=2)
        plain(DataLoader(Subset(data, [0, 1, 2]), shuffle=True), batch_size=2)

    def test_data_loader_that_never_fills_a_batch_is_refused(self):
        loader = DataLoader(Noisy(6), batch_size=8, drop_last=True)
        with pytest.raises(ValueError, match="6 images are fewer than one batch of 8"):
            plain(loader, batch_size=None)

    def test_one_class_has_no_cross_entropy(self):
        model, data = nn.Sequential(nn.Flatten(), nn.Linear(192, 1)), TensorDataset(IMAGES, LABELS)
        with pytest.raises(ValueError, match="one score an image, and the cross-entropy of one"):
            plain(data, model)
        plain(data, model, criterion=lambda scores, labels: scores.square().mean())

    @pytest.mark.parametrize("part", ["validation", "test"])
    def test_images_of_the_end_that_do_not_fit(self, part, tmp_path):
        data, model = Noisy(6), nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES))
        with pytest.raises(ValueError, match=r"the model fails on images of shape \(3, 9, 9\)"):
            plain(data, model, out=tmp_path, **{part: Noisy(6, size=9)})
        assert set(data.loaded) == {0}

    @pytest.mark.parametrize("method", [None, "lcam_fm"])
    def test_images_that_a_transformer_does_not_take(self, method, tmp_path):
        model = VisionTransformer(32, 16, 1, 2, 8, 16, num_classes=CLASSES)
        sentence = r"the model fails on images of shape \(3, 8, 8\).*Wrong image height"
        with pytest.raises(ValueError, match=sentence):
            plain(Noisy(6), model, method=method, out=tmp_path / "run")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("method", ["lficam", "lcam_fm", "lcam_img", "calm"])
    def test_images_of_which_a_layer_leaves_one_cell(self, method, tmp_path):
        data = Noisy(6, size=32)
        model = xcam.models.load("torchvision:resnet18", num_classes=CLASSES)
        with pytest.raises(LayerError, match=r"'layer4' has an output of shape \(1, 512, 1, 1\)"):
            plain(data, model, method=method, layer="layer4", out=tmp_path / "run")
        assert set(data.loaded) == {0}
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("workers", [0, 1])
    def test_error_of_an_unreadable_image_names_it(self, workers):
        class Broken(Noisy):
            def __getitem__(self, index):
                if index == 3:
                    raise ValueError("'3.png' is not a picture that can be read")
                return super().__getitem__(index)

        with pytest.raises(ValueError, match=r"^image 3 of data: '3.png' is not a picture th"):
            plain(Broken(6), workers=workers)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_images_of_several_sizes(self, workers):
        class Uneven(Noisy):
            def __getitem__(self, index):
                return torch.zeros(3, 8, 8 + index), 0

        with pytest.raises(ValueError, match=r"^the images of a batch are not of one size"):
            plain(Uneven(6), workers=workers)

    def test_net_with_auxiliary_logits_is_refused_with_a_remedy(self):
        model = xcam.models.load("torchvision:googlenet", num_classes=CLASSES)
        with pytest.raises(ModelOutputError, match=r"aux_logits=False"):
            plain(Noisy(2, size=32), model)

    def test_models(self):
        with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
            plain(Noisy(6), lambda images: images)
        with pytest.raises(ModelOutputError):
            plain(Noisy(6), nn.Identity())
        with pytest.raises(ValueError, match="no parameter to train"):
            plain(Noisy(6), Net(plain=True).requires_grad_(False))

    def test_tensorboard_that_is_not_there(self, monkeypatch, tmp_path):
        monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
        with pytest.raises(ImportError, match=r"pip install 'xcam\[train\]'"):
            plain(Noisy(6), board_path=tmp_path)
