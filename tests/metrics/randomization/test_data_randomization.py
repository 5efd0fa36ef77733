"""Data Randomization: the same net with other weights, from a file."""

import pytest
import torch
from by_hand import seeded
from evaluations import Pictures, loader
from nets import mixed, unchanged
from torch.testing import assert_close

import xcam
from xcam.engine.forward import run_settings
from xcam.engine.shared import share_passes
from xcam.errors import FileFormatError
from xcam.metrics import DataRandomization
from xcam.metrics.similarity import correlate_ranks
from xcam.models import Normalized
from xcam.models.toy import GapNet

IMAGES, TARGETS = seeded(3, 3, 8, 8), [0, 3, 1]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("permuted") / "last.safetensors"
    xcam.save(GapNet(seed=1), path)
    return str(path)


@pytest.mark.parametrize("method", ["gradcam", "saliency"])
def test_compares_with_the_net_in_the_file(method, weights):
    net = mixed(GapNet())
    explanation = xcam.explain(net, IMAGES, TARGETS, method)
    other = xcam.explain(GapNet(seed=1), IMAGES, TARGETS, method)
    with unchanged(net, IMAGES):
        scores = DataRandomization(weights).score(net, IMAGES, explanation)
    assert_close(scores, correlate_ranks(explanation.maps.abs(), other.maps.abs()))


def test_method_that_ignores_the_net_fails(weights):
    explanation = xcam.explain(GapNet(), IMAGES, TARGETS, "sobel")
    assert_close(DataRandomization(weights).score(GapNet(), IMAGES, explanation), torch.ones(3))


def test_settings_share_the_explanation(weights):
    net = Normalized(GapNet(), [0.5], [0.2])  # the file holds the weights of the net inside
    explanation = xcam.explain(net, IMAGES, TARGETS, "saliency")
    with share_passes(IMAGES), run_settings() as runtime:
        for similarity in ("spearman", "ssim"):
            DataRandomization(weights, similarity).score(net, IMAGES, explanation)
    assert (runtime.passes, runtime.shared_passes) == (6, 3)


def test_from_a_training_to_a_table(tmp_path):
    data = Pictures(8)
    labels = torch.tensor(data.labels)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    items = [(image, int(label)) for image, label in zip(data.images, data.labels, strict=True)]
    permuted = xcam.data.relabel(items, labels[order])
    xcam.fit(GapNet(), permuted, epochs=1, batch_size=4, out=tmp_path / "permuted")
    metric = DataRandomization(str(tmp_path / "permuted" / "last.safetensors"))
    results = xcam.evaluate(
        GapNet(),
        loader(data),
        ["saliency"],
        {"data": metric},
        controls=False,
        out=tmp_path / "runs",
    )
    (row,) = results.table().to_dict("records")
    assert (row["method"], row["metric"]) == ("saliency", "data")
    assert -1 <= row["value"] < 1


def test_refusals(weights):
    explanation = xcam.explain(GapNet(), IMAGES, TARGETS)
    with pytest.raises(ValueError, match=r"^data_randomization needs the weights of the net that"):
        DataRandomization().score(GapNet(), IMAGES, explanation)
    with pytest.raises(FileNotFoundError, match=r"no file of weights at 'none\.safetensors'"):
        DataRandomization("none.safetensors").score(GapNet(), IMAGES, explanation)
    other = GapNet(num_classes=7)
    explanation = xcam.explain(other, IMAGES, TARGETS)
    with pytest.raises(FileFormatError, match="are not those of this GapNet: they have another"):
        DataRandomization(weights).score(other, IMAGES, explanation)


def test_evaluation_knows_the_file_by_its_content(tmp_path):
    def evaluate():
        metric = {"permuted": DataRandomization(path)}
        data = loader(Pictures(4))
        return xcam.evaluate(GapNet(), data, ["saliency"], metric, controls=False, out=tmp_path)

    path = tmp_path / "permuted.safetensors"
    xcam.save(GapNet(seed=1), path)
    first = evaluate().table()["value"].tolist()
    assert evaluate().table()["value"].tolist() == first
    assert DataRandomization(path) == DataRandomization(str(path))
    xcam.save(GapNet(seed=7), path)
    with pytest.raises(ValueError, match=r"permuted\.safetensors'#\w{8}.* there, .*'#\w{8}"):
        evaluate()
