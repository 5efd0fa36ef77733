"""Transforms by name, sizes, and held-out validation images."""

import numpy as np
import pytest
import torch
from data_files import write_mnist, write_picture
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from xcam.data import load
from xcam.data.transforms import make_pipeline, make_size_steps
from xcam.errors import UnknownNameError
from xcam.imaging import read_pixels


@pytest.fixture
def picture():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8, generator=generator)


def names(steps):
    return [step["name"] for step in steps]


class TestPipeline:
    def test_no_steps_convert_to_floats(self, picture):
        image = make_pipeline([])(picture)
        assert type(image) is torch.Tensor
        assert torch.equal(image, picture / 255)

    def test_steps_in_turn(self, picture):
        steps = [{"name": "CenterCrop", "size": 30}, {"name": "Pad", "padding": 2, "fill": 255}]
        image = make_pipeline(steps)(picture)
        assert image.shape == (3, 34, 34)
        assert (image[:, 0] == 1).all()
        assert torch.equal(image[:, 2:-2, 2:-2], picture[:, 5:35, 15:45] / 255)

    def test_interpolation_by_name(self, picture):
        resize = {"name": "Resize", "size": [20, 20], "interpolation": "bicubic"}
        cubic = functional.resize(
            picture, [20, 20], interpolation=v2.InterpolationMode.BICUBIC, antialias=True
        )
        assert torch.equal(make_pipeline([resize])(picture), cubic / 255)
        linear = make_pipeline([{"name": "Resize", "size": [20, 20]}])(picture)
        assert not torch.equal(linear, cubic / 255)

    def test_policy_by_name(self, picture):
        (step,) = make_pipeline([{"name": "AutoAugment", "policy": "cifar10"}]).steps
        assert step.policy is v2.AutoAugmentPolicy.CIFAR10
        assert make_pipeline([{"name": "AutoAugment", "policy": "svhn"}])(picture).shape == (
            3,
            40,
            60,
        )

    def test_steps_within_a_step(self, picture):
        flip = [{"name": "RandomHorizontalFlip", "p": 1}]
        image = make_pipeline([{"name": "RandomApply", "transforms": flip, "p": 1}])(picture)
        assert torch.equal(image, picture.flip(2) / 255)

    def test_draws_from_the_global_generator(self, picture):
        crop = make_pipeline([{"name": "RandomCrop", "size": 32, "padding": 4}])
        drawn = []
        for seed in (1, 2, 1):
            torch.manual_seed(seed)
            drawn.append(crop(picture))
        assert torch.equal(drawn[0], drawn[2])
        assert not torch.equal(drawn[0], drawn[1])

    @pytest.mark.parametrize(
        ("steps", "error", "sentence"),
        [
            ([{"name": "RandomCorp", "size": 3}], UnknownNameError,
             "no transform is called 'RandomCorp'; the nearest are RandomCrop"),
            ([{"name": "RandomCrop", "sise": 3}], TypeError,
             "transform RandomCrop has no argument 'sise': did you mean size"),
            ([{"name": "RandomCrop"}], TypeError, "transform RandomCrop: .*'size'"),
            ([{"name": "RandomHorizontalFlip", "p": 2}], ValueError,
             "transform RandomHorizontalFlip: .*p"),
            ([{"name": "Resize", "size": 3, "interpolation": "cubic"}], UnknownNameError,
             "no interpolation is called 'cubic'; the nearest are bicubic"),
            ([{"name": "Resize", "size": 3, "interpolation": "lanczos"}], UnknownNameError,
             "no interpolation is called 'lanczos'"),
            ([{"name": "AutoAugment", "policy": "mnist"}], UnknownNameError, "no policy is called"),
            ([{"name": "Transform"}], UnknownNameError, "no transform is called 'Transform'"),
            ([{"name": "functional"}], UnknownNameError, "no transform is called 'functional'"),
            ([{"name": "Normalize", "mean": [0], "std": [1]}], ValueError,
             "transform Normalize has no place here: .*xcam.models.Normalized"),
            ([{"name": "ToTensor"}], ValueError, "ToTensor has no place here: .*leave it out"),
            ([{"name": "CutMix"}], ValueError, "CutMix has no place here: .*mix="),
            ([{"size": 3}], TypeError, "transform must be a mapping with a name, .*'size': 3"),
            (["RandomCrop"], TypeError, "transform must be a mapping with a name, .*'RandomCrop'"),
            ({"name": "RandomCrop"}, TypeError, "transforms must be a list, .*RandomCrop"),
            ("RandomCrop", TypeError, "transforms must be a list, .*RandomCrop"),
        ],
    )  # fmt: skip
    def test_refusals(self, steps, error, sentence):
        with pytest.raises(error, match=sentence):
            make_pipeline(steps)


class TestSizes:
    def test_shorter_side_is_resized_and_then_cropped(self, picture):
        train, test = (make_pipeline(steps) for steps in make_size_steps(32, 24))
        whole = functional.resize(picture, [32], antialias=True) / 255
        assert whole.shape == (3, 32, 48)
        assert torch.equal(test(picture), whole[:, 4:28, 12:36])
        crops = [whole[:, top:top + 24, left:left + 24]
                 for top in range(9) for left in range(25)]  # fmt: skip
        corners, flipped = set(), 0
        torch.manual_seed(0)
        for _ in range(40):
            image = train(picture)
            plain = [index for index, crop in enumerate(crops) if torch.equal(image, crop)]
            turned = [i for i, crop in enumerate(crops) if torch.equal(image.flip(2), crop)]
            corners.update(plain + turned)
            flipped += bool(turned)
            assert plain or turned
        assert len(corners) > 20
        assert 8 < flipped < 32

    def test_resize_to_a_pair_ignores_the_proportions(self, picture):
        _, test = (make_pipeline(steps) for steps in make_size_steps([40, 40], None))
        assert torch.equal(
            test(picture), functional.resize(picture, [40, 40], antialias=True) / 255
        )

    def test_crop_without_resize_cuts_the_center(self, picture):
        train, test = make_size_steps(None, [20, 30])
        assert names(train) == ["RandomCrop", "RandomHorizontalFlip"]
        assert torch.equal(make_pipeline(test)(picture), picture[:, 10:30, 15:45] / 255)

    def test_no_sizes_give_no_steps(self):
        assert make_size_steps(None, None) == ([], [])

    @pytest.mark.parametrize("size", [0, -3, 2.5, "224", [224], [224, 0], [1, 2, 3], (8, "8")])
    def test_refusals(self, size):
        if size != [224]:
            with pytest.raises(ValueError, match=r"input_size must be a positive int, or two"):
                make_size_steps(size, None)
            with pytest.raises(ValueError, match=r"crop_size must be a positive int, or two"):
                make_size_steps(224, size)
        with pytest.raises(ValueError, match=r"crop_size .* is larger than input_size"):
            make_size_steps(223, [224, 224])

    def test_lists_replace_the_sizes(self, tmp_path):
        """Random crops of any size for training, center crops for testing."""
        write_picture(tmp_path / "train" / "cat" / "1.png")
        write_picture(tmp_path / "val" / "cat" / "1.png")
        flip = [{"name": "RandomHorizontalFlip", "p": 1}]
        splits = load("folder", tmp_path, input_size=40, crop_size=30, train=flip)
        whole = read_pixels(tmp_path / "train" / "cat" / "1.png") / 255
        assert torch.equal(splits.train[0][0], whole.flip(2))
        assert torch.equal(splits.test[0][0], whole[:, 5:35, 15:45])


class TestHeldOut:
    FLIP = ({"name": "RandomVerticalFlip", "p": 1},)

    @pytest.fixture
    def root(self, tmp_path):
        write_mnist(tmp_path, train=50)
        return tmp_path

    def test_validation_is_the_first_part_of_a_seeded_shuffle(self, root):
        splits = load("mnist", root, validation={"fraction": 0.2, "seed": 223})
        order = list(range(50))
        np.random.seed(223)  # as a script would that seeds numpy once, at its start
        np.random.shuffle(order)
        assert splits.validation.indices == order[:10]
        assert splits.train.indices == order[10:]
        assert len(splits.test) == 10
        other = load("mnist", root, validation={"fraction": 0.2})
        assert other.validation.indices != order[:10]

    def test_validation_images_are_not_augmented(self, root):
        splits = load("mnist", root, train=self.FLIP, validation={"fraction": 0.2, "seed": 223})
        plain = load("mnist", root)
        for part, turn in ((splits.train, True), (splits.validation, False)):
            for (image, label), index in zip(part, part.indices, strict=True):
                whole, number = plain.train[index]
                assert torch.equal(image, whole.flip(1) if turn else whole)
                assert label == number

    def test_leaves_the_global_generator_alone(self, root):
        before = np.random.get_state()[1].tolist()
        load("mnist", root, validation={"fraction": 0.2, "seed": 223})
        assert np.random.get_state()[1].tolist() == before

    @pytest.mark.parametrize(
        ("validation", "error", "sentence"),
        [
            (0.2, TypeError, "validation must be a mapping such as .* got 0.2"),
            ({"seed": 1}, TypeError, "validation must be a mapping such as .* got {'seed': 1}"),
            ({"fraction": 0.2, "sed": 1}, TypeError, "no argument 'sed': did you mean seed"),
            ({"fraction": 1}, ValueError, "between 0 and 1, got 1"),
            ({"fraction": 1.5}, ValueError, "between 0 and 1, got 1.5"),
            ({"fraction": 0.2, "seed": -1}, ValueError, "an int from 0, got -1"),
            (
                {"fraction": 0.01},
                ValueError,
                "a fraction of 0.01 of 50 images leaves a split empty",
            ),
        ],
    )
    def test_refusals(self, root, validation, error, sentence):
        with pytest.raises(error, match=sentence):
            load("mnist", root, validation=validation)

    def test_no_training_split_is_refused(self, tmp_path):
        write_picture(tmp_path / "val" / "cat" / "1.png")
        with pytest.raises(ValueError, match="has no training split"):
            load("folder", tmp_path, validation={"fraction": 0.2})
