"""What goes on in a folder is the same training; what a training refuses to keep."""

from functools import partial, wraps

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from trainings import Net, Noisy, assert_same_bits, log, plain, train, weights

import xcam
from xcam._fit import loop
from xcam.errors import DivergenceError, XcamWarning

CLEAN = Noisy(11, noise=0.0)


def changed(**values):
    """Clean data with other labels or images behind the first."""
    data = Noisy(11, noise=0.0)
    for name, value in values.items():
        setattr(data, name, value)
    return data


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"data": changed(labels=[0] * 11)}, "training labels"),
        ({"data": changed(images=CLEAN.images / 2)}, "first training image"),
        ({"validation": Noisy(9, seed=2)}, "first validation image"),
        ({"validation": changed(labels=[0] * 11)}, "validation labels"),
        ({"accumulate": 2}, "parts of a step"),
    ],
)
def test_other_data_or_parts_are_warned_of(tmp_path, arguments, said):
    first = {"data": CLEAN, "validation": CLEAN, "out": tmp_path}
    if isinstance(arguments.get("validation"), Noisy) and len(arguments["validation"]) == 9:
        first["validation"] = Noisy(9, seed=1)
    plain(**first)
    with pytest.warns(XcamWarning, match=f"not what is given now: .*{said}"):
        plain(**first | arguments)


def scaled(logits, labels, factor=1.0, by=F.cross_entropy):
    return factor * by(logits, labels)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (nn.CrossEntropyLoss(torch.ones(3)), nn.CrossEntropyLoss(torch.tensor([1.0, 9.0, 1.0]))),
        (nn.CrossEntropyLoss(), nn.MultiMarginLoss()),
        (nn.CrossEntropyLoss(), F.cross_entropy),
        (partial(scaled), F.cross_entropy),
    ],
)
def test_another_criterion_is_refused(tmp_path, one, other):
    plain(CLEAN, out=tmp_path, criterion=one)
    plain(CLEAN, out=tmp_path, criterion=one)
    with pytest.raises(ValueError, match=r"another training \(criterion.* there, .* now"):
        plain(CLEAN, out=tmp_path, criterion=other)


def test_functions_in_a_criterion_may_have_another_address(tmp_path):
    def by(logits, labels, factor):
        return scaled(logits, labels, factor)

    for _ in range(2):  # another address each time
        plain(CLEAN, out=tmp_path, criterion=partial(scaled, by=partial(by, factor=2.0)))


ONE_SAVE = {"ema": None, "save_minutes": 99.0}  # an epoch


class TestBest:
    """The best net is the one that the stored state speaks of."""

    def test_killed_before_the_state(self, tmp_path, monkeypatch):
        train(tmp_path, epochs=1, **ONE_SAVE)
        before = (tmp_path / "best.safetensors").read_bytes()
        monkeypatch.setattr(loop, "store_state", stopped)
        with pytest.raises(SystemExit):
            train(tmp_path, epochs=2, **ONE_SAVE)
        assert (tmp_path / "best.safetensors").read_bytes() == before

    def test_killed_behind_the_state(self, tmp_path, monkeypatch):
        save = loop.save

        def dies(net, path):
            return stopped() if path.stem == "best" else save(net, path)

        with monkeypatch.context() as patched:
            patched.setattr(loop, "save", dies)
            with pytest.raises(SystemExit):
                train(tmp_path, epochs=1, **ONE_SAVE)
        net = train(tmp_path, epochs=1, **ONE_SAVE)
        assert_same_bits(weights(net), weights(train(epochs=1, **ONE_SAVE)))


def stopped(*arguments):
    raise SystemExit


class BadGradient(Net):
    """The root of a weight that is zero: the loss is finite, its gradient is not."""

    def __init__(self):
        super().__init__(plain=True)
        self.zero = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return super().forward(images) + 0 * self.zero.abs().sqrt()


class BadStatistics(Net):
    """Finite where it learns, not where it is measured."""

    def forward(self, images):
        logits = super().forward(images)
        return logits if self.training or len(images) == 1 else logits * torch.inf


class TestDivergence:
    def test_weights_that_are_not_finite_are_not_kept(self, tmp_path):
        for minutes in (0.0, 5.0):
            with pytest.raises(DivergenceError, match="a weight is not finite at epoch 1, step 1"):
                plain(CLEAN, BadGradient(), out=tmp_path, validation=CLEAN, save_minutes=minutes)
            assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]

    def test_net_that_cannot_be_measured_is_not_kept(self, tmp_path):
        with pytest.raises(DivergenceError, match="for image 0 of validation is not finite"):
            plain(CLEAN, BadStatistics(plain=True), out=tmp_path, validation=CLEAN)
        assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


class TestLastBatch:
    def net(self):
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten())

    def test_last_batch_of_one_image_is_refused_before_the_first_step(self, tmp_path):
        data = Noisy(9)
        said = r"last step of an epoch has 1 for 1 part\(s\); give drop_last=True"
        with pytest.raises(ValueError, match=said):
            plain(data, self.net(), batch_size=8, out=tmp_path)
        assert set(data.loaded) == {0}
        plain(data, self.net(), batch_size=9, out=tmp_path)  # that folder is free

    def test_last_batch_is_left_out_on_demand(self):
        net = plain(Noisy(9), self.net(), batch_size=8, drop_last=True)
        same = plain(DataLoader(Noisy(9), 8, drop_last=True), self.net(), batch_size=None)
        assert_same_bits(weights(net), weights(same))
        assert int(net[1].num_batches_tracked) == 1


def test_folder_without_a_state_may_begin_another_training(tmp_path):
    class Broken(Noisy):
        def __getitem__(self, index):
            if index == 7:
                raise LookupError("no such picture")
            return super().__getitem__(index)

    with pytest.raises(ValueError, match=r"^image 7 of data: LookupError: no such picture$"):
        plain(Broken(11), out=tmp_path)
    plain(CLEAN, out=tmp_path, batch_size=4, label_smoothing=0.1)
    assert log(tmp_path)["epoch"].tolist() == [1]


def test_curves_go_on(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for epochs in (1, 2, 3):
        plain(CLEAN, out=tmp_path, board_path=tmp_path / "board", epochs=epochs, batch_size=4)
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    assert [event.step for event in events.Scalars("step/loss")] == list(range(1, 10))
    assert [event.step for event in events.Scalars("epoch/train_loss")] == [3, 6, 9]


def test_what_a_killed_training_drew_too_much_is_dropped(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    arguments = {"out": tmp_path, "board_path": tmp_path / "board", "batch_size": 4}
    plain(CLEAN, epochs=1, **arguments)
    before = (tmp_path / "training.pt").read_bytes()
    plain(CLEAN, epochs=2, **arguments)
    (tmp_path / "training.pt").write_bytes(before)
    plain(CLEAN, epochs=2, **arguments)
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    assert [event.step for event in events.Scalars("step/loss")] == list(range(1, 7))
    assert [event.step for event in events.Scalars("epoch/train_loss")] == [3, 6]


def test_recipe_is_resumed_only_with_the_same_settings(tmp_path, monkeypatch):
    splits = xcam.data.Splits(CLEAN, CLEAN, None, ("a", "b", "c"))
    monkeypatch.setattr(xcam.data, "load", wraps(xcam.data.load)(lambda **settings: splits))
    recipe = {
        "model": {"name": "xcam:small_cnn", "num_classes": 3},
        "data": {"name": "cifar10", "validation": {"fraction": 0.2, "seed": 1}},
        "fit": {"epochs": 1, "batch_size": 11},
    }
    for _ in range(2):
        xcam.recipes.fit(recipe, "", tmp_path)
    recipe["data"]["validation"] = {"fraction": 0.2, "seed": 7}
    with pytest.raises(ValueError, match=r"another training \(data, validation: .* there, .* now"):
        xcam.recipes.fit(recipe, "", tmp_path)
