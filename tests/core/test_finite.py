"""Values that are not finite: named by image, wherever an argmax, a rank or a mean is taken."""

import pytest
import torch
from by_hand import explained, seeded
from torch import nn
from torch.utils.data import TensorDataset
from trainings import Net, Noisy

import xcam
from xcam.core import find_unreadable
from xcam.errors import DivergenceError, ModelOutputError
from xcam.metrics import (
    Accuracy,
    Deletion,
    MaskedAccuracy,
    NegativePerturbation,
    PositivePerturbation,
    RemoveAndClassify,
    ROADMoRF,
    Selectivity,
)
from xcam.metrics.reading import is_among_top

NAN, INF = float("nan"), float("inf")
IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) / 2
IMAGES[2] += 0.5  # the bright one
LABELS = torch.tensor([0, 1, 2, 0])
VALUES = seeded(4, 8, 8)
VALUES[2] = 0.9 + VALUES[2] / 10  # behind which the image stays bright
MAPS = explained(VALUES, [0] * 4)


class Gap(nn.Module):
    """Three logits, of which the last is `value` on bright images."""

    def __init__(self, value):
        super().__init__()
        self.value, self.weight = value, nn.Parameter(torch.ones(3))

    def forward(self, images):
        mean = images.mean((1, 2, 3))
        logits = self.weight * torch.stack([mean, mean / 2, mean / 4], 1)
        last = logits[:, 2].masked_fill(mean > 0.6, self.value)
        return torch.stack([logits[:, 0], logits[:, 1], last], 1)


class TestRule:
    def test_rows_without_a_highest_logit_are_unreadable(self):
        logits = torch.tensor(
            [[1.0, 2], [NAN, 2], [1, INF], [-INF, 2], [-INF, -INF], [INF, INF], [NAN, NAN]]
        )
        assert find_unreadable(logits).tolist() == [False, True, True, False, True, True, True]

    def test_class_that_is_ruled_out_changes_no_decision(self):
        logits = torch.tensor([[-INF, 1.0, 3.0, 2.0]] * 4)
        found = [is_among_top(logits, torch.arange(4), top).tolist() for top in (1, 2, 3, 4)]
        assert found[0] == [False, False, True, False]
        assert found[1] == [False, False, True, True]
        assert found[2] == [False, True, True, True]
        assert found[3] == [True] * 4

    def test_no_class_is_among_the_top_of_unreadable_logits(self):
        assert not is_among_top(torch.full((3, 3), NAN), torch.arange(3)).any()


class TestAccuracy:
    @pytest.mark.parametrize("value", [NAN, INF])
    @pytest.mark.parametrize("batch_size", [1, 3, 4])
    def test_image_with_an_unreadable_output_is_named(self, value, batch_size):
        data = TensorDataset(IMAGES, LABELS)
        with pytest.raises(ModelOutputError, match="output for image 2 is not finite"):
            xcam.accuracy(Gap(value), data, batch_size=batch_size)

    def test_dead_net_has_no_accuracy(self):
        net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
        net[1].weight.data.fill_(NAN)
        with pytest.raises(ModelOutputError, match="image 0 is not finite: check the weights"):
            xcam.accuracy(net, TensorDataset(IMAGES, LABELS))

    def test_class_that_is_ruled_out_is_never_predicted(self):
        table = xcam.accuracy(Gap(-INF), TensorDataset(IMAGES, LABELS))
        assert table["correct"].tolist() == [2, 0, 0, 2]

    def test_predicted_label_of_an_unreadable_output_is_refused(self):
        data = TensorDataset(IMAGES, LABELS)
        with pytest.raises(ModelOutputError, match="image 2 is not finite"):
            xcam.data.predict_labels(Gap(NAN), data, batch_size=2)
        assert xcam.data.predict_labels(Gap(-INF), data).tolist() == [0] * 4


class TestMetrics:
    @pytest.mark.parametrize("value", [NAN, INF])
    def test_accuracy_on_images_names_the_image(self, value):
        with pytest.raises(ModelOutputError, match="image 2 is not finite: check the weights"):
            Accuracy().score(Gap(value), IMAGES, MAPS, LABELS)

    @pytest.mark.parametrize("value", [NAN, INF])
    @pytest.mark.parametrize(
        "metric",
        [
            MaskedAccuracy(normalize=None),
            PositivePerturbation(),
            NegativePerturbation(),
            RemoveAndClassify(space="input"),
            ROADMoRF(noise=0.0),
            Selectivity(output="accuracy"),
            Deletion(output="logit", space="input"),
        ],
        ids=lambda metric: metric.spec.name,
    )
    def test_hits_of_changed_images_name_the_image(self, metric, value):
        """The explained class's own logit is finite, and another one is not."""
        with pytest.raises(ModelOutputError, match="image 2 is not finite once pixels are changed"):
            metric.score(Gap(value), IMAGES, MAPS, LABELS)

    def test_statistic_that_is_not_finite_has_no_mean(self):
        class Broken(type(Accuracy())):
            def score(self, model, images, explanation, truth=None):
                return torch.tensor([1.0, NAN, 1.0, INF])

        with pytest.raises(ModelOutputError, match=r"accuracy gave a value .* for image 1"):
            Broken()(Gap(0.0), IMAGES, MAPS)


class Hides(nn.Module):
    """A criterion that makes of NaN what looks like a good loss."""

    def forward(self, logits, labels):
        return nn.functional.cross_entropy(logits.nan_to_num(), labels)


class Bursts(Net):
    """Finite in training; the 20th of its validation images is not."""

    def forward(self, images):
        logits = super().forward(images)
        faulty = (images[:, 0, 0, 0] == 0.125) & (not self.training)
        return logits.masked_fill(faulty[:, None], NAN)


class TestTraining:
    def fit(self, data, net, **arguments):
        return xcam.fit(net, data, epochs=2, batch_size=8, **arguments)

    def test_image_that_is_not_finite_is_named(self):
        data = Noisy(30, noise=0)
        data.images[17, 1, 2, 3] = NAN
        with pytest.raises(DivergenceError, match="image 17 of the data holds values that are not"):
            self.fit(data, Net(plain=True))

    def test_loss_that_hides_an_unreadable_output_is_no_loss(self):
        data = Noisy(30, noise=0)
        data.images[21] = INF
        with pytest.raises(DivergenceError, match=r"loss or an output is not finite .*image 21 "):
            self.fit(data, Net(plain=True), criterion=Hides())

    def test_validation_image_with_an_unreadable_output_is_named(self, tmp_path):
        data, validation = Noisy(30, noise=0), Noisy(30, noise=0)
        validation.images[20, 0, 0, 0] = 0.25  # halved when it is read
        with pytest.raises(
            DivergenceError, match="output for image 20 of validation is not finite"
        ):
            self.fit(data, Bursts(plain=True), validation=validation, criterion=Hides())

    def test_last_good_epoch_is_kept_and_said(self, tmp_path):
        class Later(Noisy):
            def __getitem__(self, index):
                image, label = super().__getitem__(index)
                return image * (INF if self.loaded.count(index) > 2 else 1), label

        with pytest.raises(DivergenceError, match=r"keeps what was saved up to epoch 1$"):
            self.fit(Later(16, noise=0), Net(plain=True), out=tmp_path)
        kept = xcam.load(tmp_path / "last.safetensors", model=Net(plain=True))
        good = xcam.fit(Net(plain=True), Noisy(16, noise=0), epochs=1, batch_size=8)
        for one, other in zip(kept.parameters(), good.parameters(), strict=True):
            assert torch.equal(one, other)
