"""What goes in and out of `fit`: the caller's things stay as they are, what is wrong is said."""

import random

import numpy as np
import pytest
import torch
from nets import Untidy, mixed, unchanged
from torch import nn
from torch.utils.data import (
    DataLoader,
)
from trainings import (
    Net,
    Noisy,
    assert_close,
    assert_same_bits,
    log,
    plain,
    train,
    weights,
)

import xcam
from xcam.errors import DivergenceError
from xcam.models import Normalized


class TestLeavesNoTrace:
    def test_successful_fit_leaves_model_and_random_state_unchanged(self):
        model = mixed(Net())
        with unchanged(model):
            net = train(model=model, epochs=1)
        assert not any(module.training for module in net.modules())
        assert all(parameter.grad is None for parameter in net.parameters())

    def test_failed_fit_leaves_model_and_random_state_unchanged(self):
        model = mixed(Net())

        class Broken(Noisy):
            def __getitem__(self, index):
                if index == 20:
                    torch.rand(3), np.random.rand(), random.random()
                    raise LookupError("no such picture")
                return super().__getitem__(index)

        with unchanged(model), pytest.raises(ValueError, match=r"image 20 .*no such picture"):
            train(model=model, data=Broken())

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_fit_works_in_any_grad_mode(self, mode):
        model = Net()
        with mode(), unchanged(model):
            net = train(model=model, epochs=1)
        assert_same_bits(weights(net), weights(train(epochs=1)))

    def test_fit_depends_on_its_seed_and_not_on_global_random_state(self):
        one = train(epochs=1)
        torch.manual_seed(9)
        np.random.seed(9)
        random.seed(9)
        assert_same_bits(weights(train(epochs=1)), weights(one))
        assert not torch.equal(train(epochs=1, seed=1).fc.weight, one.fc.weight)

    def test_fit_restores_buffers_that_the_net_writes_to(self):
        model = Untidy()
        with unchanged(model):
            plain(Noisy(6), model)

    def test_no_file_without_out(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        train(epochs=1)
        assert list(tmp_path.iterdir()) == []


class TestResult:
    def test_best_epoch_is_returned_and_saved(self, tmp_path):
        settings = {"name": "SGD", "lr": 0.3, "momentum": 0.9}
        arguments = {"epochs": 6, "optimizer": settings, "ema": None, "seed": 1}
        net = train(tmp_path, **arguments)
        accuracies = log(tmp_path)["validation_accuracy"]
        assert accuracies.argmax() not in (0, 5)  # else it would not tell
        assert_same_bits(weights(net), weights(train(**arguments)))
        assert xcam.accuracy(net, Noisy(12, seed=1))["accuracy"].iloc[-1] == pytest.approx(
            accuracies.max(),
            abs=0.2,  # its items are drawn anew
        )
        best = xcam.load(tmp_path / "best.safetensors", model=Net())
        assert_same_bits(weights(net), weights(best))
        last = xcam.load(tmp_path / "last.safetensors", model=Net())
        assert not torch.equal(last.fc.weight, net.fc.weight)

    def test_last_epoch_is_returned_without_validation(self, tmp_path):
        net = plain(Noisy(11), out=tmp_path, epochs=2)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "last.safetensors", "log.csv", "manifest.json", "training.pt"]  # fmt: skip
        last = xcam.load(tmp_path / "last.safetensors", model=Net(plain=True))
        assert_same_bits(weights(net), weights(last))
        assert list(log(tmp_path)) == ["epoch", "lr", "train_loss", "train_accuracy", "train_top2"]

    def test_nets_that_are_kept(self, tmp_path):
        train(tmp_path, epochs=5, keep_every=2, validation=None)
        names = {path.stem for path in tmp_path.glob("*.safetensors")}
        assert names == {"epoch_0002", "epoch_0004", "last"}

    def test_test_images_are_measured_at_the_end(self, tmp_path):
        test = Noisy(9, seed=4, noise=0.0)
        net = train(tmp_path, epochs=1, test=test)
        table = xcam.accuracy(net, test).to_csv(index=False)
        assert (tmp_path / "test.csv").read_text() == table
        train(tmp_path, epochs=1, test=test)
        assert (tmp_path / "test.csv").read_text() == table
        other = Noisy(30, seed=5, noise=0.0)
        train(tmp_path, epochs=1, test=other)
        table = xcam.accuracy(net, other).to_csv(index=False)
        assert (tmp_path / "test.csv").read_text() == table
        train(tmp_path, epochs=3)
        assert not (tmp_path / "test.csv").exists()  # that was of two epochs

    def test_categories_come_from_the_data(self):
        data = Noisy(6)
        data.classes = ["left", "middle", "right"]
        net = plain(data, Normalized(Net(plain=True), (0.5,), (0.5,)))
        assert net.categories == ("left", "middle", "right")

    def test_input_size_comes_from_the_training_images(self, tmp_path):
        for method in (None, "lcam_fm"):
            model = Normalized(Net(plain=True), [0.5], [0.2], input_size=224)
            with unchanged(model):
                net = plain(Noisy(6, size=12), model, method=method, out=tmp_path / str(method))
            assert net.input_size == (12, 12)
            assert model.input_size == (224, 224)
            last = xcam.load(tmp_path / str(method) / "last.safetensors", model=model)
            assert last.input_size == (12, 12)

    def test_wrapped_models_come_back_bare(self):
        net = plain(Noisy(6), nn.DataParallel(Net(plain=True)))
        assert_same_bits(weights(net), weights(plain(Noisy(6))))

    def test_data_loader_determines_batch_size_and_collation(self):
        def halved(items):
            images, labels = zip(*items, strict=True)
            return torch.stack(images) / 2, torch.tensor(labels)

        class Halved(Noisy):
            def __getitem__(self, index):
                image, label = super().__getitem__(index)
                return image / 2, label

        loader = DataLoader(Noisy(11), batch_size=4, shuffle=True, collate_fn=halved)
        net = plain(loader, batch_size=None)
        assert_same_bits(weights(net), weights(plain(Halved(11), batch_size=4)))

    def test_progress(self, capsys):
        train(epochs=2, progress=True)
        shown = capsys.readouterr().err
        assert "epoch 2/2" in shown
        assert "accuracy 0." in shown


@pytest.mark.parametrize("steps", [3])
def test_tensorboard(tmp_path, steps):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plain(Noisy(11), out=tmp_path / "run", board_path=tmp_path / "board", epochs=2, batch_size=4)
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    names = {"step/loss", "step/lr", "step/top1", "step/top2"}
    assert names < set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("step/loss")] == [1, 2, 3, 4, 5, 6]
    curve = [event.value for event in events.Scalars("epoch/train_loss")]
    assert curve == pytest.approx(log(tmp_path / "run")["train_loss"].tolist())


class Diverging(Noisy):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return (image * torch.nan if self.loaded.count(index) == 2 and index == 5 else image), label


def test_non_finite_loss_stops_fit_and_keeps_the_last_good_state(tmp_path):
    arguments = {"epochs": 3, "batch_size": 4, "save_minutes": 0.0}
    with pytest.raises(
        DivergenceError, match=r"not finite at epoch 2, step \d \(learning rate 0\.1\)"
    ):
        plain(Diverging(11), out=tmp_path, **arguments)
    state = torch.load(tmp_path / "training.pt", weights_only=True)
    assert state["epoch"] == 1
    assert all(value.isfinite().all() for value in state["net"].values())
    good = plain(Noisy(11), out=tmp_path, **arguments)
    assert_close(weights(good), weights(plain(Noisy(11), **arguments)), 0)
