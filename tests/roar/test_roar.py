"""The verb `roar`: curves, resumption, additions, sources of maps, presets and refusals."""

import json
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from retrainings import (
    EXPLAINED,
    FIT,
    SIDE,
    TEST,
    TRAIN,
    Bright,
    Net,
    lines,
    ramp,
    roar,
    save_arrays,
)
from scipy import stats
from torch.utils.data import Subset

import xcam
from xcam._roar.protocol import Protocol
from xcam.data import planted_cues
from xcam.errors import XcamWarning
from xcam.explanations.folder import StoredMaps, read_maps

ENDS = 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with both modes and two repeats of a method, a blurred one, and the controls."""
    out = tmp_path_factory.mktemp("whole")
    results = roar(
        out,
        methods="saliency",
        mode=("remove", "keep"),
        repeats=2,
        controls=True,
        blurred=True,
        maps=None,
    )
    return out, results


class TestTable:
    def test_all_trainings_are_there(self, whole):
        _, results = whole
        rows = results.to_pandas()
        assert len(rows) == (4 * 2 * 2 + ENDS) * 2  # curves, modes, fractions, ends, repeats
        assert set(rows["method"].dropna()) == {
            "saliency",
            "saliency, blurred",
            "random",
            "sobel",
        }
        assert rows["seed"].tolist() == rows["repeat"].tolist()
        assert (rows["accuracy"] == rows["correct"] / 12).all()

    def test_counts_are_exact(self, whole):
        rows = whole[1].to_pandas()
        pixels = SIDE * SIDE
        for row in rows.to_dict("records"):
            count = int(row["fraction"] * pixels)
            removed = pixels - count if row["mode"] == "keep" else count
            assert (row["removed"], row["elements"]) == (removed, pixels)

    def test_ends_are_measured_and_shared(self, whole):
        table = whole[1].table()
        rows = whole[1].to_pandas()
        means = rows[rows["method"].isna()].groupby("fraction")["accuracy"].mean()
        for end in (0.0, 1.0):
            removed = table[(table["mode"] == "remove") & (table["fraction"] == end)]
            kept = table[(table["mode"] == "keep") & (table["fraction"] == 1 - end)]
            assert removed["value"].tolist() == [means[end]] * 4
            assert kept["value"].tolist() == [means[end]] * 4

    def test_intervals_are_of_student(self, whole):
        keys = ["method", "mode", "fraction"]
        table, rows = whole[1].table().set_index(keys), whole[1].to_pandas().set_index(keys)
        point = ("saliency", "remove", 0.25)
        line, values = table.loc[point], rows.sort_index().loc[point, "accuracy"]
        expected = stats.t.interval(0.95, 1, loc=values.mean(), scale=stats.sem(values))
        assert (line["value"], line["repeats"]) == (values.mean(), 2)
        np.testing.assert_allclose((line["low"], line["high"]), expected)

    def test_controls_come_last(self, whole):
        methods = whole[1].table()["method"].drop_duplicates().tolist()
        assert methods[0] == "saliency"

    def test_a_folder_is_opened_again(self, whole):
        out, results = whole
        assert lines(xcam.RetrainingResults(out)).equals(lines(results))


class TestResumption:
    def test_what_is_missing_is_trained_again_with_the_same_table(self, whole):
        out, results = whole
        files = sorted((out / "trainings").rglob("repeat-*.json"))
        kept = {path: path.stat().st_mtime_ns for path in files[::2]}
        for path in files[1::2]:
            path.unlink()
        for path in sorted((out / "maps").rglob("batch-*.safetensors"))[::2]:
            path.unlink()
        again = roar(
            out,
            methods="saliency",
            mode=("remove", "keep"),
            repeats=2,
            controls=True,
            blurred=True,
            maps=None,
            parallel=3,
        )
        pd.testing.assert_frame_equal(lines(again), lines(results))
        assert {path: path.stat().st_mtime_ns for path in kept} == kept
        assert not list(out.rglob("*.lock"))

    def test_methods_fractions_modes_and_repeats_are_added(self, tmp_path):
        few = roar(tmp_path, fractions=(0.5,))
        assert len(few.to_pandas()) == 1 + ENDS
        more = roar(
            tmp_path, methods=["saliency"], fractions=(0.25,), repeats=2, mode=("remove", "keep")
        )
        rows = more.to_pandas()
        assert len(rows) == 1 + 2 * (2 * 2 + ENDS)
        added = lines(more).merge(lines(few))
        assert len(added) == len(few.to_pandas())

    @pytest.mark.parametrize(
        ("changes", "what"),
        [
            ({"fit": {**FIT, "epochs": 3}}, "fit, epochs: 1 there, 3 now"),
            ({"unit": "element"}, "unit"),
            ({"seed": 1}, "seed"),
            ({"train": Bright(18)}, "train"),
            ({"mask_eval": False}, "mask_eval"),
            ({"make_model": lambda: Net(double=True)}, "net"),
        ],
    )
    def test_another_evaluation_is_refused(self, tmp_path, changes, what):
        roar(tmp_path, fractions=(0.5,))
        with pytest.raises(ValueError, match=what):
            roar(tmp_path, **changes)

    def test_a_damaged_outcome_is_named(self, tmp_path):
        roar(tmp_path, fractions=(0.5,))
        path = next((tmp_path / "trainings").rglob("repeat-0.json"))
        path.write_text(path.read_text().replace('"correct": ', '"correct": 1'))
        with pytest.raises(ValueError, match=r"repeat-0\.json"):
            xcam.RetrainingResults(tmp_path)

    def test_a_label_of_another_method_is_refused(self, tmp_path):
        roar(tmp_path, methods={"mine": "saliency"}, fractions=(0.5,), maps=None)
        with pytest.raises(ValueError, match='"saliency" there, "gradcam" now'):
            roar(tmp_path, methods={"mine": "gradcam"}, fractions=(0.25,), maps=None)


class TestMaps:
    def test_the_store_is_that_of_evaluate(self, tmp_path):
        roar(tmp_path, methods="gradcam", maps=None, fractions=(0.5,))
        folder = tmp_path / "maps" / "GapNet" / "gradcam" / "train"
        stored = StoredMaps(folder)
        explained = xcam.explain(EXPLAINED, TRAIN.images, method="gradcam")
        found = stored(TRAIN.images, TRAIN.ids, explained.target)
        torch.testing.assert_close(torch.stack(found), explained.reduced, rtol=1e-3, atol=1e-3)
        maps, _ = read_maps(folder / "batch-00000000.safetensors")
        assert maps.dtype == torch.float16
        assert maps.shape[1:] == (4, 4)  # of the layer
        if sys.platform == "linux":  # what is not used takes no memory
            path = (folder / "batch-00000000.safetensors").resolve()
            assert str(path) in Path("/proc/self/maps").read_text()

    def test_what_evaluate_stored_can_be_taken(self, tmp_path):
        direct = roar(tmp_path / "direct", methods="gradcam", maps=None)
        for name, data in (("train", TRAIN), ("test", TEST)):
            folder = tmp_path / name
            xcam.evaluate(
                EXPLAINED, data, "gradcam", "sparseness", out=folder, save_maps=True, controls=False
            )
            (tmp_path / "stored").mkdir(exist_ok=True)
            (folder / "maps" / "gradcam").rename(tmp_path / "stored" / name)
        taken = roar(tmp_path / "taken", maps={"gradcam": tmp_path / "stored"})
        pd.testing.assert_frame_equal(lines(taken), lines(direct))

    def test_arrays_made_elsewhere(self, tmp_path):
        images = {"train": TRAIN, "test": TEST}
        both = tmp_path / "both"
        for name, data in images.items():
            save_arrays(tmp_path / "apart" / name, data.ids, ramp(data.images, (), None))
        save_arrays(both, [*TRAIN.ids, *TEST.ids], ramp(torch.empty(32, 1, SIDE, SIDE), (), None))
        expected = lines(roar()).drop(columns="method")
        for folder in (tmp_path / "apart", both):
            found = lines(roar(maps=folder))
            assert folder.name in set(found["method"])
            pd.testing.assert_frame_equal(found.drop(columns="method"), expected)

    def test_several_networks(self, tmp_path):
        nets = {"one": EXPLAINED, "other": xcam.models.toy.GapNet(num_classes=2, seed=5)}
        results = xcam.roar(
            Net, TRAIN, TEST, nets, "gradcam", fit=FIT, fractions=(0.5,), repeats=1, out=tmp_path
        )
        rows = results.to_pandas()
        assert len(rows) == 2 + 2 + ENDS  # the controls are no model's
        table = results.table()
        assert sorted(table["model"].unique()) == ["one", "other"]
        assert len(table) == 2 * 3 * 3

    def test_labels_are_explained_as_the_model_numbers_them(self, tmp_path):
        net = xcam.models.toy.GapNet(num_classes=2)
        net.categories = ("right", "left")
        data = Bright()
        data.classes = ("left", "right")
        xcam.roar(
            Net, data, TEST, net, "gradcam", fit=FIT, fractions=(0.5,), repeats=1,
            target="label", out=tmp_path, controls=False,
        )  # fmt: skip
        stored = StoredMaps(tmp_path / "maps" / "GapNet" / "gradcam" / "train")
        assert stored._places.keys() == {(str(i), 1 - i % 2) for i in range(20)}

    def test_a_method_that_fails_is_named(self):
        def none(images, ids, target):
            return torch.full((len(images), 2, 2), torch.nan)

        with pytest.raises(ValueError, match="'maps' has no maps of images 0 to 19"):
            roar(maps=none)


class TestPresets:
    def test_white_box(self, tmp_path):
        results = xcam.roar(
            Net, TRAIN, TEST, EXPLAINED, "saliency", fit=FIT, preset="whitebox", out=tmp_path,
            fractions=(0.1, 0.3, 0.9),
        )  # fmt: skip
        rows = results.to_pandas()
        inner = rows[rows["method"].notna()]
        elements = 3 * SIDE * SIDE
        kept = {f: int(elements * (1 - f)) for f in inner["fraction"]}
        assert Protocol.choose("whitebox", "keep", 0).fractions == tuple(
            tenth / 10 for tenth in range(1, 10)
        )
        assert (inner["removed"] == elements - inner["fraction"].map(kept)).all()
        assert rows["repeat"].eq(0).all()
        assert not (tmp_path / "maps" / "GapNet" / "saliency" / "test").exists()
        maps, _ = read_maps(next((tmp_path / "maps").rglob("saliency/train/batch-*")))
        assert maps.shape[1:] == (3, SIDE, SIDE)
        control, _ = read_maps(next((tmp_path / "maps").rglob("random/train/batch-*")))
        assert control.shape[1:] == (3, SIDE, SIDE)
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        assert (manifest["fill"], manifest["mask_eval"]) == ("zero", False)

    def test_paper_ranks_elements_by_their_square_and_what_is_given_precedes_it(self, tmp_path):
        xcam.roar(
            Net, TRAIN, TEST, EXPLAINED, "saliency", fit=FIT, preset="paper", fractions=(0.5,),
            repeats=1, fill="linear", out=tmp_path, controls=False,
        )  # fmt: skip
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        named = {name: manifest[name] for name in ("unit", "rank", "fill", "rounding")}
        expected = {"unit": "element", "rank": "square", "fill": "linear", "rounding": "down"}
        assert named == expected


class Watching(Net):
    """Notes the images that it sees when it is tested."""

    seen: ClassVar[list] = []

    def forward(self, images):
        if not self.training:
            self.seen.append(images)
        return super().forward(images)


@pytest.mark.parametrize(("mask_eval", "count"), [(True, 32), (False, 0)])
def test_masks_are_applied_to_the_test_images(mask_eval, count):
    Watching.seen.clear()
    roar(make_model=Watching, fill="zero", mask_eval=mask_eval, fractions=(0.5,))
    tests = [images for images in Watching.seen if len(images) == FIT["batch_size"]]
    zeros = [(images == 0).all(1).flatten(1).sum(1).unique().tolist() for images in tests]
    # Nothing removed, everything, half; where that is much, also as they are.
    everything = SIDE * SIDE
    expected = [[0], [everything], [0], [count], [0]] if mask_eval else [[0], [0], [0]]
    assert zeros == expected


@pytest.mark.parametrize("parallel", [1, 3])
def test_unmasked_test_images_are_answered_as_without_masks_in_the_test(tmp_path, parallel):
    keys = ["method", "fraction"]
    masked, unmasked = (
        roar(
            tmp_path / str(mask_eval),
            fit={**FIT, "epochs": 3},
            test=Bright(60, seed=1),
            mask_eval=mask_eval,
            parallel=parallel,
        )
        .to_pandas()
        .set_index(keys)
        for mask_eval in (True, False)
    )
    assert masked["correct_unmasked"].tolist() == unmasked["correct"].tolist()
    assert unmasked["correct_unmasked"].tolist() == unmasked["correct"].tolist()
    assert masked["correct_unmasked"].tolist() != masked["correct"].tolist()
    assert (masked["accuracy_unmasked"] == masked["correct_unmasked"] / 60).all()


def test_dry_run_says_what_it_would_take_and_writes_nothing(tmp_path, capsys):
    results = roar(tmp_path, repeats=3, dry_run=True)
    shown = capsys.readouterr().out
    assert "12 trainings of 12: about 0:00:" in shown
    assert "measured on 3 steps" in shown
    assert results.table().empty
    assert list(tmp_path.iterdir()) == []


def test_shards_share_the_trainings(tmp_path):
    expected = lines(roar())
    first = roar(tmp_path, shard="1/2")
    assert len(first.to_pandas()) == 2
    pd.testing.assert_frame_equal(lines(roar(tmp_path, shard=(2, 2))), expected)


def test_subsets_and_relabeled_data_keep_their_transforms():
    seen = []
    data = Bright(transform=lambda image: seen.append(1) or image.flip(2))
    part = xcam.data.relabel(Subset(data, range(10)), [i % 2 for i in range(10)])
    roar(train=part, fractions=(0.5,))
    assert len(seen) >= 3 * 10  # of each training image in each training


def test_the_model_and_the_random_state_are_left_as_they_were():
    before = torch.get_rng_state()
    weights = {name: value.clone() for name, value in EXPLAINED.state_dict().items()}
    roar(methods="gradcam", maps=None, fractions=(0.5,), parallel=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights[name]) for name, value in EXPLAINED.state_dict().items())


NET = Net()


class Unsteady(Bright):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image + torch.rand(()), label


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"fractions": (0.0, 0.5)}, ValueError, "between 0 and 1, got 0.0; both ends"),
        ({"fractions": ()}, ValueError, "one at least"),
        ({"fractions": ("a",)}, TypeError, "numbers"),
        ({"mode": "drop"}, ValueError, "mode must be one of 'remove', 'keep', got 'drop'"),
        ({"unit": "patch"}, ValueError, "unit must be one of"),
        ({"fill": "blur"}, ValueError, "fill must be one of"),
        ({"preset": "roar"}, ValueError, "preset must be one of 'paper', 'whitebox'"),
        ({"repeats": 0}, ValueError, "repeats must be an int of at least 1"),
        ({"parallel": 0}, ValueError, "parallel must be an int of at least 1"),
        ({"shard": "3/2"}, ValueError, "out=…|shard must be i/n"),
        ({"fit": {}}, ValueError, "how long to train"),
        ({"fit": {"epochs": 1, "seed": 3}}, ValueError, "may not set seed"),
        ({"fit": {"epochs": 1, "batchsize": 3}}, TypeError, "did you mean batch_size"),
        ({"make_model": NET}, TypeError, "lambda: Net"),
        ({"make_model": lambda: NET}, ValueError, "same net twice"),
        ({"make_model": lambda: 3}, TypeError, "got int"),
        ({"train": Unsteady()}, ValueError, "another one each time"),
        ({"test": planted_cues(4, 32, 2)}, ValueError, "one size"),
        ({"maps": None}, ValueError, "nothing to evaluate"),
    ],
)  # fmt: skip
def test_refusals(changes, error, message):
    with pytest.raises(error, match=message):
        roar(**changes)


def test_a_transform_that_normalizes_is_refused():
    from torchvision.transforms import v2

    data = Bright(transform=v2.Compose([v2.Normalize((0.5,), (0.5,))]))
    with pytest.raises(ValueError, match=r"xcam.models.Normalized"):
        roar(train=data)


def test_weights_that_no_seed_changes_are_warned_of():
    from xcam.models.toy import SmallCNN

    with pytest.warns(XcamWarning, match="same weights whatever torch's seed"):
        roar(make_model=lambda: SmallCNN(num_classes=2), fractions=(0.5,))
