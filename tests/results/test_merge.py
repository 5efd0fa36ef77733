"""Results of several evaluations are merged as if one had made them all."""

import numpy as np
import pytest
from evaluations import Pictures, rows
from torch.utils.data import DataLoader, Subset

import xcam
from xcam.models.toy import GapNet
from xcam.results import Results


class Some(Subset):
    """Some of the pictures, with their ids and labels."""

    def __init__(self, data, indices):
        super().__init__(data, indices)
        self.ids = [data.ids[index] for index in indices]
        self.labels = [data.labels[index] for index in indices]


DATA = Pictures(5)


def evaluate(out=None, data=DATA, methods="gradcam", metrics="sparseness", **arguments):
    arguments = {"controls": False, "model": GapNet(), **arguments}
    loader = DataLoader(data, batch_size=arguments.pop("size", 2))
    model = arguments.pop("model")
    return xcam.evaluate(model, loader, methods, metrics, out=out, **arguments)


def read(results):
    found = rows(results.folder)
    return sorted(
        (row["image"], row["model"], row["method"], row["metric"], np.round(row["values"], 6)[0])
        for row in found
    )


def assert_same(merged, whole):
    assert read(merged) == read(whole)
    columns = ["model", "metric", "method", "value", "low", "high", "n"]
    one, other = (
        x.table()[columns].sort_values(columns[:3], ignore_index=True) for x in (merged, whole)
    )
    assert one[columns[:3]].equals(other[columns[:3]])
    assert set(one["n"]) == {len(DATA)}
    np.testing.assert_allclose(one["value"], other["value"], rtol=1e-6)


def test_methods_metrics_and_models_in_other_batches(tmp_path):
    nets = {"a": GapNet(), "b": GapNet(seed=1)}
    everything = {"methods": ["gradcam", "hirescam"], "metrics": ["sparseness", "deletion"]}
    parts = [
        evaluate(model={"a": nets["a"]}),
        evaluate(model={"a": nets["a"]}, methods="hirescam", size=3),
        evaluate(model=nets, metrics="deletion", methods=everything["methods"], size=4),
        evaluate(model={"b": nets["b"]}, methods=everything["methods"], size=5),
    ]
    whole = evaluate(model=nets, **everything)
    merged = parts[0].merge(*parts[1:], out=tmp_path / "merged")
    assert_same(merged, whole)
    differences = merged.compare("gradcam", "hirescam")
    assert differences["n"].tolist() == [len(DATA)] * 4
    again = evaluate(tmp_path / "merged", model=nets, **everything)  # nothing is missing
    assert read(again) == read(merged)


@pytest.mark.parametrize(
    "shares", [[[0, 1], [2, 3, 4]], [[0, 3], [0, 1, 2, 4]], [[4, 2], [1, 3, 0]]]
)
def test_other_images(tmp_path, shares):
    """Positions in the data sets collide; ids tell the images."""
    first, *others = [evaluate(data=Some(DATA, share)) for share in shares]
    merged = first.merge(*others, out=tmp_path)
    assert_same(merged, evaluate())
    grown = evaluate(tmp_path, methods=["gradcam", "hirescam"])
    assert_same(grown, evaluate(methods=["gradcam", "hirescam"]))


def test_positions_that_agree_are_kept():
    parts = [evaluate(indices=[1, 3]), evaluate(indices=[0, 2, 4])]
    merged = parts[0].merge(parts[1])
    assert [(row["index"], row["image"]) for row in sorted(
        rows(merged.folder), key=lambda row: row["index"]
    )] == list(enumerate(DATA.ids))  # fmt: skip


def test_merged_results_live_as_long_as_they_are_held():
    merged = evaluate().merge(evaluate(methods="hirescam"))
    folder = merged.folder
    assert set(merged.table()["method"]) == {"gradcam", "hirescam"}
    del merged
    assert not folder.exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"model": GapNet(seed=1)}, "models, GapNet: "),
        ({"methods": xcam.get_method("gradcam")(relu=True)}, r"methods, gradcam: .*relu=True"),
        ({"target": "label"}, 'target: "predicted" there, "label" now'),
    ],
)
def test_what_differs_is_refused_by_name(tmp_path, change, sentence):
    with pytest.raises(ValueError, match=rf"is another evaluation than .*\(.*{sentence}"):
        evaluate().merge(evaluate(**change), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_labels_and_images_are_refused():
    other = Pictures(5)
    other.labels[2] += 1
    with pytest.raises(ValueError, match=rf"image '{DATA.ids[2]}' has label . in one of"):
        evaluate().merge(evaluate(data=other))
    other = Pictures(5)
    other.images[0] += 0.1
    with pytest.raises(ValueError, match=rf"contents, {DATA.ids[0]}: \w+ there, \w+ now"):
        evaluate().merge(evaluate(data=other))


def test_folder_that_holds_something_is_refused(tmp_path):
    results = evaluate(tmp_path)
    with pytest.raises(ValueError, match="is not empty; give a new folder"):
        results.merge(evaluate(methods="hirescam"), out=tmp_path)
    assert read(Results(tmp_path)) == read(results)
