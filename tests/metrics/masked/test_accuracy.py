"""Accuracy on the images and behind their maps, against topk, and what is refused."""

import pytest
import torch
from by_hand import explained, seeded
from nets import Staged, mixed, unchanged
from torch.testing import assert_close

from xcam.engine.forward import run_settings
from xcam.metrics import Accuracy, MaskedAccuracy
from xcam.models import Normalized
from xcam.models.toy import SmallCNN

IMAGES = seeded(8, 3, 8, 8)
LABELS = torch.arange(8) % 5
MAPS = explained(seeded(8, 8, 8, seed=1), [0] * 8)


def by_topk(model, images, top):
    with torch.no_grad():
        found = model(images).topk(top, dim=1).indices
    return (found == LABELS[:, None]).any(1).float()


@pytest.mark.parametrize("top", [1, 2, 4])
class TestAgainstTopK:
    def test_accuracy_on_images_matches_topk(self, top):
        net = SmallCNN()
        assert_close(Accuracy(top).score(net, IMAGES, MAPS, LABELS), by_topk(net, IMAGES, top))

    @pytest.mark.parametrize("space", ["input", "normalized"])
    def test_behind_the_maps(self, top, space):
        net = Normalized(SmallCNN(), (0.4, 0.5, 0.6), (0.2, 0.3, 0.2))
        metric = MaskedAccuracy(top, normalize=None, space=space)
        masks = MAPS.maps[:, None]
        hidden = IMAGES * masks + (0 if space == "input" else net.mean * (1 - masks))
        assert_close(metric.score(net, IMAGES, MAPS, LABELS), by_topk(net, hidden, top))

    def test_map_of_ones_hides_nothing(self, top):
        ones = explained(torch.ones(8, 8, 8), [0] * 8)
        net = SmallCNN()
        behind = MaskedAccuracy(top, normalize=None).score(net, IMAGES, ones, LABELS)
        assert torch.equal(behind, Accuracy(top).score(net, IMAGES, ones, LABELS))


def test_positive_single_logit_decides_for_class_1():
    class Sign(torch.nn.Module):
        def forward(self, images):
            return images[:, 0].mean((1, 2))[:, None] - 0.5

    images = torch.tensor([0.9, 0.9, 0.1, 0.1, 0.5]).reshape(5, 1, 1, 1).expand(5, 3, 8, 8)
    maps, labels = explained(torch.ones(5, 8, 8), [0] * 5), torch.tensor([1, 0, 1, 0, 0])
    for metric in (Accuracy(), MaskedAccuracy(normalize=None)):
        assert metric.score(Sign(), images, maps, labels).tolist() == [1, 0, 0, 1, 1]
    with pytest.raises(ValueError, match="label 2 is out of range: the model has 2 classes"):
        Accuracy().score(Sign(), images, maps, labels * 2)
    with pytest.raises(ValueError, match="top must be below the model's number of classes, 2"):
        Accuracy(2).score(Sign(), images, maps, labels)


@pytest.mark.parametrize("metric", [Accuracy(), Accuracy(3), MaskedAccuracy(muted=0.5)])
class TestMetric:
    @pytest.mark.parametrize("size", [1, 3])
    def test_any_chunk_size(self, metric, size):
        whole = metric.score(SmallCNN(), IMAGES, MAPS, LABELS)
        with run_settings(batch_size=size):
            assert torch.equal(metric.score(SmallCNN(), IMAGES, MAPS, LABELS), whole)

    def test_finish_is_the_share_of_hits(self, metric):
        hits = metric.score(SmallCNN(), IMAGES, MAPS, LABELS)
        assert hits.shape == (8,)
        assert set(hits.tolist()) <= {0.0, 1.0}
        assert metric.finish(hits.mean(0)).item() == hits.sum().item() / 8

    def test_metric_leaves_model_and_inputs_unchanged(self, metric):
        net = mixed(Staged())
        with unchanged(net, IMAGES, MAPS.maps, LABELS):
            metric.score(net, IMAGES, MAPS, LABELS)

    @pytest.mark.parametrize(
        ("truth", "error", "sentence"),
        [
            (None, TypeError, "truth must be a tensor of 8 integer labels, got NoneType"),
            (LABELS.float(), TypeError, "truth must be .*got torch.float32"),
            (LABELS > 2, TypeError, "truth must be .*got torch.bool"),
            (LABELS[:5], ValueError, r"truth must be \(8,\) labels, one an image, got \(5,\)"),
            (LABELS[:, None], ValueError, r"truth must be \(8,\) labels.*got \(8, 1\)"),
            (LABELS - 1, ValueError, "label -1 is negative"),
            (LABELS + 1, ValueError, "label 5 is out of range: the model has 5 classes"),
        ],
    )
    def test_refuses_other_truth(self, metric, truth, error, sentence):
        with pytest.raises(error, match=sentence):
            metric.score(SmallCNN(), IMAGES, MAPS, truth)


@pytest.mark.parametrize("cls", [Accuracy, MaskedAccuracy])
@pytest.mark.parametrize("top", [0, -1, 1.5, True, "5"])
def test_refuses_other_tops(cls, top):
    error = ValueError if top in (0, -1) else TypeError
    with pytest.raises(error, match=f"top must be an int of at least 1, such as 1, got {top!r}"):
        cls(top=top)
