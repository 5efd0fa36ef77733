"""The images of an evaluation: their range, loaders of them, and fractions of their elements."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from retrainings import FIT, TRAIN, Bright, lines, roar
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler
from torchvision.transforms import v2

import xcam
from xcam._roar.images import PlainImages
from xcam._roar.plan import Curve, check_fractions
from xcam._roar.protocol import Protocol
from xcam._roar.removal import Removal
from xcam._roar.training import check_fit
from xcam._roar.work import Work
from xcam.explanations.folder import read_maps
from xcam.models.toy import GapNet


class TestLoaders:
    def test_batch_size_drop_last_and_workers_are_those_of_the_loader(self):
        loader = DataLoader(TRAIN, batch_size=4, drop_last=True, num_workers=2)
        brought = {"drop_last": True, "workers": 2}
        assert check_fit({"epochs": 1}, loader) == {"epochs": 1, "batch_size": 4, **brought}
        given = {"epochs": 1, "batch_size": 8, "workers": 1}
        assert check_fit(given, loader) == {"epochs": 1, "batch_size": 8, **brought}

    def test_it_trains_as_they_say(self):
        fit = {name: value for name, value in FIT.items() if name != "batch_size"}
        found = roar(train=DataLoader(TRAIN, batch_size=4), fit=fit, fractions=(0.5,))
        expected = roar(fit=fit | {"batch_size": 4}, fractions=(0.5,))
        assert lines(found).equals(lines(expected))

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_one_that_chooses_or_collates_is_refused(self, split):
        sampler = WeightedRandomSampler([1.0] * 20, 20)
        with pytest.raises(ValueError, match=f"{split} takes its images by a WeightedRandomSam"):
            roar(**{split: DataLoader(TRAIN, sampler=sampler)})
        with pytest.raises(ValueError, match=f"{split} is a loader with a collate_fn"):
            roar(**{split: DataLoader(TRAIN, collate_fn=list)})


def tensors(change):
    return TensorDataset(change(TRAIN.images.clone()), torch.tensor(TRAIN.labels))


class TestRange:
    @pytest.mark.parametrize(
        "transform",
        [
            v2.Normalize((0.5,), (0.5,)),
            v2.Compose([v2.Compose([v2.Normalize((0.5,), (0.5,))])]),
            torch.nn.Sequential(v2.Normalize((0.5,), (0.5,))),
            v2.RandomApply([v2.Normalize((0.5,), (0.5,))]),
        ],
    )
    def test_normalize_is_refused_wherever_it_is(self, transform):
        with pytest.raises(ValueError, match=r"xcam.models.Normalized"):
            roar(train=Bright(transform=transform))

    def test_a_function_that_normalizes_is_refused(self):
        for split in ("train", "test"):
            data = Bright(transform=v2.Lambda(lambda image: (image - 0.5) / 0.5), prefix=split)
            with pytest.raises(ValueError, match=f"image . of {split}, after its transform, has"):
                roar(**{split: data})

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda images: images * 255, "image 0 of train has values from .* to 2"),
            (lambda images: images * 2 - 1, "images in .0, 1.: scale them, and wrap the models"),
            (lambda images: images.index_fill_(0, torch.tensor(3), torch.nan), "image 3 .* nan"),
        ],
    )
    def test_images_beyond_it_are_refused(self, change, message):
        with pytest.raises(ValueError, match=message):
            roar(train=tensors(change))

    def test_a_little_beyond_it_is_resizing(self):
        assert len(PlainImages.open(tensors(lambda images: images * 1.2 - 0.1), "train")) == 20


class Bytes(Bright):
    def __getitem__(self, index):
        image = (self.images[index] * 255).byte()
        return (self.transform(image) if self.transform else image), self.labels[index]


def test_holes_are_alike_in_all_splits_whatever_their_transforms():
    scale = v2.ToDtype(torch.float32, scale=True)
    train = Bytes(transform=v2.Compose([v2.RandomHorizontalFlip(0.0), scale]))
    splits = {
        "train": PlainImages.open(train, "train"),
        "test": PlainImages.open(Bytes(12, seed=1, transform=scale), "test"),
    }
    protocol = Protocol.choose(None, "remove", 0)
    made = Work(protocol, splits, {}, [], torch.nn.Identity, FIT, "cpu", 1, None).trainer
    holes = {
        name: made.load_whole(name).removal.fill_in(
            images.load([0]), torch.ones(1, 8, 8, dtype=torch.bool), made.channel_mean
        )
        for name, images in splits.items()
    }
    byte = splits["train"].load(range(20)).mean((0, 2, 3)).mul(255).round().div(255)
    assert torch.equal(holes["test"][0, :, 0, 0], byte)
    data = replace(made.load_whole("train"), count=64)
    assert torch.equal(data[0][0], holes["train"][0])
    assert torch.equal(holes["train"], holes["test"])


class TestFractions:
    def test_thirds_are_exact(self):
        removal = Removal("pixel", "zero", "signed", False, 0)
        (third,) = check_fractions((1 / 3,))
        for elements in (9, 783, 3072, 150528, 3 * 4096**2):
            assert removal.count(third, elements) == elements // 3

    def test_numbers_of_any_type(self):
        assert check_fractions((np.float32(0.1), 0.1 + 0.2, np.float64(0.5))) == (0.1, 0.3, 0.5)
        assert check_fractions(np.float32(0.5)) == (0.5,)
        with pytest.raises(TypeError, match="must be numbers, such as"):
            check_fractions((torch.tensor(0.5),))

    def test_close_ones_have_files_of_their_own(self, tmp_path):
        curve = Curve("net", "method", "method", False)
        paths = {
            Protocol.choose(None, "remove", 0, fractions=(fraction,)).fractions[0]
            for fraction in (1 / 3, 1 / 3 + 1e-7)
        }
        assert len(paths) == 2
        assert curve.locate(tmp_path) == tmp_path / "trainings" / "net" / "method"

    @pytest.mark.parametrize("fraction", [1e-7, 0.01, 0.9999999])
    def test_none_or_all_of_the_elements_are_refused(self, fraction):
        message = f"a fraction of {fraction} is (0|64) of an image's 64 pixels"
        if fraction < 0.5:
            with pytest.raises(ValueError, match=message):
                roar(fractions=(fraction,))
        else:  # rounded down, that is one less than all
            assert Removal("pixel", "zero", "signed", False, 0).count(fraction, 64) == 63


@pytest.mark.parametrize("method", ["calm", "lcam_img", "lficam"])
def test_trainable_methods_have_maps(tmp_path, method):
    net = xcam.fit(GapNet(num_classes=2), TRAIN, method=method, epochs=1, batch_size=20)
    results = xcam.roar(
        lambda: GapNet(num_classes=2, seed=int(torch.randint(99, ()))), TRAIN, Bright(12, seed=1),
        net, fit={"epochs": 1, "batch_size": 20}, fractions=(0.5,), repeats=1, controls=False,
        out=tmp_path,
    )  # fmt: skip
    (path,) = tmp_path.glob(f"maps/*/{method}/train/batch-*")
    maps, _ = read_maps(path)
    explained = xcam.explain(net, TRAIN.images).reduced
    unit = explained / explained.flatten(1).abs().amax(1)[:, None, None]
    torch.testing.assert_close(maps.float(), unit, rtol=1e-3, atol=1e-3)
    assert set(results.to_pandas()["method"].dropna()) == {method}
