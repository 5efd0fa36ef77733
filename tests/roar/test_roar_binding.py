"""What is the same evaluation: what a folder refuses, takes as equal, and cleans up."""

import shutil

import pytest
import torch
from retrainings import (
    EXPLAINED,
    FIT,
    TEST,
    TRAIN,
    Bright,
    Net,
    lines,
    ramp,
    roar,
    save_arrays,
)

import xcam
from xcam._roar.images import PlainImages
from xcam.models.toy import GapNet

OTHER = GapNet(num_classes=2, seed=9)
FEW = {"fit": {**FIT, "batch_size": 20}, "fractions": (0.5,)}


def run(out, model=EXPLAINED, methods="gradcam", **arguments):
    defaults = {**FEW, "repeats": 1, "controls": False, "out": out}
    return xcam.roar(Net, TRAIN, TEST, model, methods, **defaults | arguments)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return run(tmp_path_factory.mktemp("done")).folder


@pytest.fixture
def folder(done, tmp_path):
    """A folder in which nothing is missing of `run`, to be changed."""
    return shutil.copytree(done, tmp_path / "run")


class TestOthersAtWork:
    def test_their_settings_bind_before_the_first_training_is_done(self, tmp_path):
        refused = []

        def meddled(images, ids, target):
            if not refused:
                with pytest.raises(ValueError, match="fit, epochs: 1 there, 3 now") as error:
                    roar(tmp_path, **FEW | {"fit": {**FEW["fit"], "epochs": 3}})
                refused.append(error)
            return ramp(images, ids, target)

        results = roar(tmp_path, maps=meddled, **FEW)
        assert refused
        assert len(results.to_pandas()) == 3

    def test_the_model_of_their_maps_binds_before_the_first_map_is_there(
        self, tmp_path, monkeypatch
    ):
        refused, explain = [], xcam._roar.maps.explain

        def meddled(*arguments, **settings):
            if not refused:
                refused.append(None)
                with pytest.raises(ValueError, match=r"another set of maps \(model, sha256"):
                    run(tmp_path, OTHER)
            return explain(*arguments, **settings)

        monkeypatch.setattr("xcam._roar.maps.explain", meddled)
        assert len(run(tmp_path).to_pandas()) == 3
        assert refused

    def test_a_work_that_nobody_began_may_change_its_settings(self, tmp_path):
        def failing(images, ids, target):
            raise ValueError("no maps yet")

        with pytest.raises(ValueError, match="no maps yet"):
            roar(tmp_path, maps={"maps": failing})
        assert len(roar(tmp_path, **FEW).to_pandas()) == 3


class TestSameEvaluation:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"model": OTHER}, "model, sha256"),
            ({"target": "label"}, 'target: "predicted" there, "label" now'),
            ({"methods": {"gradcam": "saliency"}}, '"gradcam" there, "saliency" now'),
        ],
    )
    def test_other_maps_are_refused_also_when_nothing_is_missing(self, folder, changes, message):
        with pytest.raises(ValueError, match=message):
            run(folder, **changes)
        for path in folder.rglob("batch-*"):  # to save space
            path.unlink()
        with pytest.raises(ValueError, match=message):
            run(folder, dry_run=True, **changes)

    def test_changed_images_and_transforms_are_refused(self, folder):
        arguments = {**FEW, "maps": None, "methods": "gradcam", "dry_run": True}
        middle = Bright(prefix="train-")
        middle.images[5:15] = 0.5
        with pytest.raises(ValueError, match="train, pixels: "):
            roar(folder, train=middle, **arguments)
        with pytest.raises(ValueError, match=r'train, transform: .* there, \["<function brighten'):
            roar(folder, train=Bright(prefix="train-", transform=brighten), **arguments)
        with pytest.raises(ValueError, match="test, images: 12 there, 11 now"):
            roar(folder, test=Bright(11, seed=1), **arguments)

    def test_a_sample_stands_for_images_that_do_not_fit_into_memory(self, monkeypatch):
        monkeypatch.setattr("xcam._roar.images.CACHED_VALUES", 0)
        changed, other = Bright(200), Bright(200, transform=torch.nn.Identity())
        changed.images[199] = 0.5
        whole, found, again = (
            PlainImages.open(data, "train").describe() for data in (Bright(200), changed, other)
        )
        assert {name for name, value in whole.items() if value != found[name]} == {"pixels"}
        assert again == whole | {"transform": ["Identity()"]}

    def test_settings_may_be_spelled_otherwise(self, done):
        again = run(
            done,
            fit={
                "optimizer": {"momentum": 0.9, "lr": 0.05, "name": "SGD"},
                "workers": 1,
                "drop_last": False,
                "batch_size": 20,
                "epochs": 1,
                "schedule": None,
            },
        )
        # The seconds are the same, too: nothing was trained.
        assert again.to_pandas().equals(xcam.RetrainingResults(done).to_pandas())

    def test_controls_are_bound_to_no_model_target_or_order(self, tmp_path):
        a, b, controls = {"A": EXPLAINED}, {"B": OTHER}, {"controls": True}
        run(tmp_path, a, **controls)
        run(tmp_path, b, target="label", methods="saliency", **controls)
        run(tmp_path, b | a, methods="random", **controls, maps={"mine": ramp})
        results = run(tmp_path, b, target="label", methods="saliency", **controls, repeats=2)
        rows = results.to_pandas()
        assert rows[rows["control"]]["method"].value_counts().to_dict() == {"random": 2, "sobel": 2}

    def test_an_evaluation_is_called_by_its_name(self, tmp_path):
        xcam.evaluate(EXPLAINED, TEST, "gradcam", "sparseness", out=tmp_path, controls=False)
        with pytest.raises(ValueError, match="is the folder of an evaluation, not of a ROAR") as e:
            run(tmp_path)
        assert len(str(e.value)) < 200

    def test_a_dry_run_refuses_another_evaluation(self, folder, capsys):
        with pytest.raises(ValueError, match="epochs: 1 there, 2 now"):
            run(folder, fit={**FEW["fit"], "epochs": 2}, dry_run=True)
        assert "trainings" not in capsys.readouterr().out


def brighten(image):
    return (image * 1.1).clamp(max=1)


def test_what_killed_processes_left_is_removed_by_the_next_call(folder):
    left = [
        folder / ".worker-0123.lock",
        folder / "maps" / "GapNet" / "gradcam" / "test" / ".batch-00000000.lock",
        *(path.with_name(".repeat-0.lock") for path in folder.glob("trainings/removed-*/*")),
    ]
    for path in left:
        path.touch()
        part = path.with_name(f".{path.stem[1:]}.json.123.abcdefgh.part")
        part.mkdir()
        (part / "content").touch()
    run(folder)
    assert not list(folder.rglob(".*"))


def test_a_damaged_file_of_maps_is_roars_own(folder):
    path = next(folder.glob("maps/GapNet/gradcam/test/batch-*"))
    content = bytearray(path.read_bytes())
    content[-3] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"same call of xcam\.roar again") as error:
        run(folder, fractions=(0.25,))
    assert str(error.value).startswith(f"'{path}' is damaged")
    path.unlink()
    assert len(run(folder, fractions=(0.25,)).to_pandas()) == 4


class TestMapsFromElsewhere:
    def test_one_folder_needs_ids_that_tell_splits_apart(self, tmp_path):
        def number(count, seed):
            data = Bright(count, seed)
            del data.ids
            return data

        save_arrays(tmp_path / "maps", map(str, range(20)), torch.rand(20, 8, 8))
        data = number(20, 0), number(12, 1)
        with pytest.raises(ValueError, match=r"train and test both have an image '0'.* folders"):
            roar(None, *data, maps=tmp_path / "maps")
        # Of the test images none is looked up.
        roar(None, *data, maps=tmp_path / "maps", mask_eval=False, dry_run=True)

    def test_each_split_needs_a_folder(self, tmp_path):
        save_arrays(tmp_path / "train", TRAIN.ids, torch.rand(20, 8, 8))
        with pytest.raises(ValueError, match="folder for train, but none for test"):
            roar(maps={"mine": tmp_path})
        roar(maps={"mine": tmp_path}, mask_eval=False, dry_run=True)

    @pytest.mark.parametrize(
        ("maps", "message"),
        [
            (lambda images, ids, target: {}["x"], "'maps' has no maps of images .*KeyError: 'x'"),
            (lambda images, ids, target: torch.rand(3, 8, 8), r"must be \(20, h, w\), got \(3, 8"),
            (
                lambda images, ids, target: torch.rand(len(images), 2, 8, 8),
                "'maps' has no maps of images 0 to 19 of train: .* each of an image's 3, got 2",
            ),
            (
                lambda images, ids, target: torch.full((len(images), 8, 8), torch.inf),
                "not finite",
            ),
        ],
    )
    def test_what_is_wrong_with_them_is_said(self, maps, message):
        with pytest.raises(ValueError, match=message):
            roar(maps=maps, unit="element")

    def test_large_ones_do_not_overflow_in_half_precision(self):
        def large(images, ids, target):
            return ramp(images, ids, target) / 64 * 1e38

        assert lines(roar(maps=large, **FEW)).equals(lines(roar(**FEW)))

    @pytest.mark.parametrize("label", ["random", "sobel", "mine, blurred"])
    def test_none_may_be_called_as_a_control_is(self, label):
        maps = {label: ramp, "mine": ramp}
        with pytest.raises(ValueError, match=f"called '{label}', and so is a control"):
            roar(maps=maps, controls=True, blurred=True)
        with pytest.raises(ValueError, match="called 'random', and so is a control"):
            roar(methods={"random": "saliency"}, controls=True)
