"""Evaluation on images that show several classes: a row for each of them."""

import warnings

import pytest
import torch
from multi_label import ColorNet, Colors
from torch.utils.data import DataLoader, TensorDataset

import xcam
from xcam.core import independent_classes
from xcam.errors import XcamWarning
from xcam.metrics import AverageDrop, Insertion

NET = ColorNet().eval()
METRICS = {"AD": AverageDrop(), "insertion": Insertion(step=16)}
SAME = {"target": "label", "controls": False}


@pytest.fixture(scope="module")
def results():
    return xcam.evaluate(NET, Colors(5), "gradcam", METRICS, **SAME)


def test_each_image_has_a_row_for_each_class_that_it_shows(results):
    rows = results.to_pandas("AD")
    shown = Colors(5).shown.nonzero().tolist()
    assert rows[["image", "target", "label"]].astype(int).to_numpy().tolist() == [
        [image, k, k] for image, k in shown
    ]
    assert rows["index"].tolist() == [3 * image + k for image, k in shown]
    assert not rows["error"].any()


def test_probability_is_that_of_each_class_by_itself(results):
    data = Colors(5)
    image, classes = data.shown.nonzero().T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XcamWarning)  # of maps without any positive value
        maps = xcam.explain(NET, data.images[image], classes, "gradcam").normalized(relu=False)
    with torch.no_grad():
        p, o = (
            NET(shown).sigmoid().gather(1, classes[:, None])[:, 0]
            for shown in (data.images[image], data.images[image] * maps[:, None])
        )
    drops = 100 * (p - o).clamp(min=0) / p
    found = torch.tensor([float(values[0]) for values in results.to_pandas("AD")["values"]])
    torch.testing.assert_close(found, drops, rtol=1e-4, atol=1e-2)


def test_intervals_draw_images_and_not_their_rows(results):
    table = results.table()
    assert set(table["n"]) == {5}
    assert set(table["rows"]) == {int(Colors(5).shown.sum())}


def test_metric_alone_takes_the_same_probabilities():
    data = Colors(3)
    explanation = xcam.explain(NET, data.images, data.shown.long().argmax(1), "gradcam")
    softmax = AverageDrop()(NET, data.images, explanation)
    with independent_classes():
        assert AverageDrop()(NET, data.images, explanation) != softmax
    assert AverageDrop()(NET, data.images, explanation) == softmax


def test_unlisted_labels_loaders_and_lists_of_batches_give_the_same_rows(results):
    data = Colors(5)
    loader = DataLoader(Colors(5, listed=False), batch_size=2)
    batches = [(data.images[:2], data.shown[:2]), (data.images[2:], data.shown[2:])]
    wanted = results.to_pandas("AD")
    for given in (loader, batches):
        rows = xcam.evaluate(NET, given, "gradcam", METRICS, **SAME).to_pandas("AD")
        assert rows["index"].tolist() == wanted["index"].tolist()
        for one, other in zip(rows["values"], wanted["values"], strict=True):
            assert float(one[0]) == pytest.approx(float(other[0]), abs=1e-3)


def test_image_is_loaded_once_a_batch():
    data = Colors(5)
    xcam.evaluate(NET, DataLoader(data, batch_size=32), "gradcam", METRICS, **SAME)
    assert sorted(data.loaded[4:]) == [0, 1, 2, 3, 4]  # before: twice the first and the last


def test_fraction_and_indices_choose_images():
    rows = xcam.evaluate(NET, Colors(6), "gradcam", METRICS, indices=[4, 1], **SAME)
    assert rows.to_pandas("AD")["image"].unique().tolist() == ["1", "4"]
    half = xcam.evaluate(NET, Colors(6), "gradcam", METRICS, fraction=0.5, **SAME)
    assert half.to_pandas("AD")["image"].nunique() == 3


def test_truth_is_that_of_the_explained_class():
    data = Colors(6, truth=True)
    metric = xcam.get_metric("energy_pointing_game")()
    rows = xcam.evaluate(NET, data, "gradcam", {"energy": metric}, **SAME).to_pandas("energy")
    image, classes = data.shown.nonzero().T
    boxes = torch.stack([data[i][2] for i in range(6)])[image, classes]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XcamWarning)  # of maps without any positive value
        explanation = xcam.explain(NET, data.images[image], classes, "gradcam")
        wanted = metric.score(NET, data.images[image], explanation, boxes)
    found = torch.tensor([float(values[0]) for values in rows["values"]])
    torch.testing.assert_close(found, wanted.flatten().float(), rtol=1e-4, atol=1e-5)


def test_evaluation_resumes(tmp_path, results):
    wanted = results.to_pandas("AD")
    data = DataLoader(Colors(5), batch_size=2)
    xcam.evaluate(NET, data, "gradcam", METRICS, out=tmp_path, **SAME)
    parts = sorted((tmp_path / "rows").glob("*.parquet"))
    parts[1].unlink()
    found = xcam.evaluate(NET, data, "gradcam", METRICS, out=tmp_path, **SAME).to_pandas("AD")
    assert found["index"].tolist() == wanted["index"].tolist()


def test_stored_maps_are_found_by_image_and_class(tmp_path, results):
    xcam.evaluate(NET, Colors(5), "gradcam", METRICS, out=tmp_path, save_maps=True, **SAME)
    found = xcam.evaluate(NET, Colors(5), (), METRICS, maps=tmp_path / "maps" / "gradcam", **SAME)
    wanted = results.table().set_index("metric")["value"]
    for name, value in found.table().set_index("metric")["value"].items():
        assert value == pytest.approx(wanted[name], rel=1e-2, abs=0.05)


def test_predicted_class_has_one_row_an_image():
    rows = xcam.evaluate(NET, Colors(5), "gradcam", METRICS, controls=False).to_pandas("AD")
    with torch.no_grad():
        assert rows["target"].tolist() == NET(Colors(5).images).argmax(1).tolist()
    assert rows["label"].isna().all()


@pytest.mark.parametrize("target", ["label", "predicted"])
def test_metrics_of_one_label_are_refused(target):
    with pytest.raises(ValueError, match=r"'accuracy' compares with one label an image, and these"):
        xcam.evaluate(NET, Colors(5), "gradcam", "accuracy", target=target)


def test_truth_of_the_labels_is_refused_for_predicted_classes():
    with pytest.raises(ValueError, match=r"boxes of the explained class.*give target='label'"):
        xcam.evaluate(NET, Colors(5, truth=True), "gradcam", "max_box_acc")


def test_labels_of_both_kinds_are_refused():
    data = Colors(5)
    data.labels = [*data.shown[:3], 1, 2]
    with pytest.raises(ValueError, match=r"image 3 has the label \(\) of torch.int64, and the fir"):
        xcam.evaluate(NET, data, "gradcam", METRICS, **SAME)


def test_images_without_any_label_are_refused():
    data = TensorDataset(Colors(2).images, torch.zeros(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="no image has a label"):
        xcam.evaluate(NET, data, "gradcam", METRICS, **SAME)


def test_labels_of_another_number_of_classes_are_refused(tmp_path):
    data = Colors(4)
    data.classes = ()
    data.shown = data.labels = torch.ones(4, 5, dtype=torch.bool)
    with pytest.raises(ValueError, match="labels of 5 classes are given for the model's 3; give"):
        xcam.evaluate(ColorNet().eval(), data, "gradcam", "average_drop", **SAME)
