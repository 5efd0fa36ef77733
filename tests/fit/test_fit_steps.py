"""Each option changes what it should, by as much as a formula says."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from trainings import CLASSES, Net, Noisy, assert_close, assert_same_bits, log, plain, weights

import xcam
from xcam._fit.order import Order

CLEAN = Noisy(11, noise=0.0)


def batch(data=CLEAN):
    images, labels = zip(*data, strict=True)
    return torch.stack(images), torch.tensor(labels)


def gradients(net, loss=F.cross_entropy, data=CLEAN):
    """Of the mean loss of all images, by parameter."""
    net = copy.deepcopy(net).train()
    images, labels = batch(data)
    values = torch.autograd.grad(loss(net(images), labels), list(net.parameters()))
    return {name: value for (name, _), value in zip(net.named_parameters(), values, strict=True)}


def by_hand(net, lr, steps=1, momentum=0.0, decay=0.0, clip=math.inf):
    """The nets after each of some steps of SGD (Sutskever et al., 2013, without dampening)."""
    net, speed, path = copy.deepcopy(net), {}, []
    for _ in range(steps):
        found = gradients(net)
        norm = math.sqrt(sum(float(value.square().sum()) for value in found.values()))
        for name, parameter in net.named_parameters():
            gradient = found[name] * min(1.0, clip / norm) + decay * parameter.detach()
            speed[name] = momentum * speed.get(name, 0) + gradient
            parameter.data -= lr(name) * speed[name]
        path.append(weights(net))
    return path


class TestOptimiser:
    @pytest.mark.parametrize("steps", [1, 3])
    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_steps_are_those_of_the_formula(self, steps, momentum):
        settings = {"name": "SGD", "lr": 0.1, "momentum": momentum, "weight_decay": 0.01}
        net = plain(CLEAN, epochs=steps, optimizer=settings)
        expected = by_hand(Net(plain=True), lambda name: 0.1, steps, momentum, 0.01)
        assert_close(weights(net), expected[-1])

    def test_any_of_torchs_by_name(self):
        net = plain(CLEAN, optimizer={"name": "Adam", "lr": 0.01})
        start = weights(Net(plain=True))
        moved = {name: start[name] - value for name, value in weights(net).items()}
        for name, value in gradients(Net(plain=True)).items():  # a first step of Adam is the sign
            expected = 0.01 * value / (value.abs() + 1e-8)
            torch.testing.assert_close(moved[name], expected, rtol=1e-3, atol=1e-6)

    def test_groups_by_pattern_the_first_counts(self):
        groups = {
            r"^fc\.bias": {"lr": 0.3},
            r"fc": {"lr_factor": 10},
            r"bias": {"lr_factor": 2},
        }
        rates = {"fc.bias": 0.3, "fc.weight": 1.0, "features.0.bias": 0.2, "features.4.bias": 0.2}
        net = plain(CLEAN, groups=groups)
        expected = by_hand(Net(plain=True), lambda name: rates.get(name, 0.1))
        assert_close(weights(net), expected[-1])

    def test_group_may_have_its_own_weight_decay(self):
        settings = {"name": "SGD", "lr": 0.1, "weight_decay": 0.5}
        net = plain(CLEAN, optimizer=settings, groups={r"bias": {"weight_decay": 0.0}})
        whole = by_hand(Net(plain=True), lambda name: 0.1, decay=0.5)[-1]
        none = by_hand(Net(plain=True), lambda name: 0.1)[-1]
        expected = {name: none[name] if "bias" in name else whole[name] for name in whole}
        assert_close(weights(net), expected)

    def test_frozen_parameters_stay(self):
        model = Net(plain=True)
        model.features.requires_grad_(False)
        before = weights(model)
        net = plain(CLEAN, model, optimizer={"name": "SGD", "lr": 0.1, "weight_decay": 0.5})
        changed = {name for name, value in weights(net).items() if not value.equal(before[name])}
        assert changed == {"fc.weight", "fc.bias"}
        assert not any(p.requires_grad for p in net.features.parameters())

    def test_clip_shortens_the_gradient_of_all_parameters_together(self):
        norm = math.sqrt(sum(float(v.square().sum()) for v in gradients(Net(plain=True)).values()))
        for clip in (norm / 3, norm * 3):
            net = plain(CLEAN, clip=clip)
            expected = by_hand(Net(plain=True), lambda name: 0.1, clip=clip)
            assert_close(weights(net), expected[-1], 1e-5)


class TestSchedule:
    def test_one_that_ends_with_the_training_may_follow_a_warm_up(self, tmp_path):
        settings = {"name": "OneCycleLR", "max_lr": 1, "total_steps": 3, "warmup": 1}
        assert len(self.rates(tmp_path, epochs=4, schedule=settings)) == 4

    def rates(self, tmp_path, **arguments):
        plain(CLEAN, out=tmp_path, **arguments)
        return log(tmp_path)["lr"].tolist()

    def test_none_keeps_the_rate(self, tmp_path):
        assert self.rates(tmp_path, epochs=3) == [0.1, 0.1, 0.1]

    def test_steps_with_gamma(self, tmp_path):
        settings = {"name": "MultiStepLR", "milestones": [2, 3], "gamma": 0.1}
        rates = self.rates(tmp_path, epochs=5, schedule=settings)
        assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001, 0.001])

    def test_cosine_behind_a_warm_up(self, tmp_path):
        settings = {"name": "CosineAnnealingLR", "T_max": 4, "warmup": 2, "warmup_factor": 0.5}
        rates = self.rates(tmp_path, epochs=6, schedule=settings)
        cosine = [0.05 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
        assert rates == pytest.approx([0.05, 0.075, *cosine])

    def test_per_step(self, tmp_path):
        settings = {"name": "ExponentialLR", "gamma": 0.9, "per": "step", "warmup": 1}
        rates = self.rates(tmp_path, epochs=3, batch_size=3, schedule=settings)
        # Four steps an epoch, of which the log has the last one's rate.
        assert rates == pytest.approx([0.1 * (0.1 + 0.9 * 3 / 4), 0.1 * 0.9**3, 0.1 * 0.9**7])

    def test_schedule_sets_the_learning_rate_of_each_step(self):
        settings = {"name": "LinearLR", "start_factor": 0.5, "total_iters": 1}
        net = plain(CLEAN, epochs=2, schedule=settings)
        half = by_hand(Net(plain=True), lambda name: 0.05)[-1]
        middle = Net(plain=True)
        middle.load_state_dict(half)
        assert_close(weights(net), by_hand(middle, lambda name: 0.1)[-1])


class TestLoss:
    def test_label_smoothing(self, tmp_path):
        plain(CLEAN, out=tmp_path, label_smoothing=0.2)
        images, labels = batch()
        logs = Net(plain=True)(images).detach().log_softmax(1)
        expected = 0.8 * -logs[range(len(logs)), labels] + 0.2 * -logs.mean(1)
        assert log(tmp_path)["train_loss"].item() == pytest.approx(float(expected.mean()), rel=1e-6)

    def test_criterion(self, tmp_path):
        def squares(logits, labels):
            return (logits - F.one_hot(labels, CLASSES)).square().mean()

        net = plain(CLEAN, out=tmp_path, criterion=squares, validation=CLEAN)
        expected = {n: v - 0.1 * gradients(Net(plain=True), squares)[n]
                    for n, v in weights(Net(plain=True)).items()}  # fmt: skip
        assert_close(weights(net), expected)
        images, labels = batch()
        after = squares(net(images), labels)
        assert log(tmp_path)["validation_loss"].item() == pytest.approx(float(after.detach()))

    def test_criterion_module_is_used_and_left_unchanged(self):
        criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))
        net = plain(CLEAN, criterion=criterion)
        weighted = by_hand_of(criterion)
        assert_close(weights(net), weighted)
        assert criterion.training

    @pytest.mark.parametrize("mix", [{"mixup": 0.5}, {"cutmix": 1.0}, {"mixup": 1, "cutmix": 1.0}])
    def test_mixed_labels_are_shares(self, mix):
        seen = []

        def watched(logits, labels):
            seen.append(labels)
            return F.cross_entropy(logits, labels)

        net = plain(CLEAN, mix=mix, criterion=watched, epochs=8)
        assert all(labels.shape == (11, CLASSES) for labels in seen)
        assert all(torch.allclose(labels.sum(1), torch.ones(11)) for labels in seen)
        mixed = [float(labels.max(1).values.min()) for labels in seen]
        assert len(set(mixed)) > 4  # drawn anew each time
        assert min(mixed) < 0.99
        again = plain(CLEAN, mix=mix, criterion=watched, epochs=8)
        assert_same_bits(weights(net), weights(again))

    def test_log_of_the_first_epoch(self, tmp_path):
        plain(CLEAN, out=tmp_path)
        images, labels = batch()
        logits = Net(plain=True)(images).detach()
        row = log(tmp_path).iloc[0]
        assert row["train_loss"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-6)
        assert row["train_accuracy"] == float((logits.argmax(1) == labels).double().mean())
        two = logits.topk(2).indices.eq(labels[:, None]).any(1)
        assert row["train_top2"] == float(two.double().mean())


def by_hand_of(loss):
    found = gradients(Net(plain=True), loss)
    return {name: value - 0.1 * found[name] for name, value in weights(Net(plain=True)).items()}


def six_parts():
    """Return the orders of three processes that compute two parts each."""
    return [Order(8, 8, False, 0, rank, num_processes=3, accumulate=2) for rank in range(3)]


class TestParts:
    @pytest.mark.parametrize("accumulate", [2, 3, 4])
    def test_accumulated_parts_are_one_batch(self, accumulate):
        """Also the last batch, of 3 images, that has fewer images than there are parts."""
        arguments = {"epochs": 2, "batch_size": 4, "seed": 3}
        whole = plain(CLEAN, **arguments)
        assert_close(weights(plain(CLEAN, accumulate=accumulate, **arguments)), weights(whole))

    def test_missing_parts_are_not_filled_up(self):
        """Nine images make a step of four parts and one of a single image."""
        data = Noisy(9, noise=0.0)
        net = plain(data, Net(), batch_size=8, accumulate=4)
        assert int(net.features[1].num_batches_tracked) == 5
        assert [len(order.split(2)) for order in six_parts()] == [1, 1, 1]

    def test_parts_are_of_nearly_equal_size(self):
        found = [part for order in six_parts() for part in order.split(8)]
        assert sorted(part.stop - part.start for part in found) == [1, 1, 1, 1, 2, 2]
        assert sorted(i for part in found for i in range(8)[part]) == list(range(8))

    def test_bf16_is_near_and_not_the_same(self):
        exact, half = plain(CLEAN), plain(CLEAN, precision="bf16")
        assert_close(weights(half), weights(exact), 2e-2)
        assert any(not v.equal(weights(exact)[name]) for name, v in weights(half).items())
        assert all(value.dtype == torch.float32 for value in weights(half).values())

    def test_fp16_scales_the_loss(self, tmp_path):
        exact, half = plain(CLEAN), plain(CLEAN, out=tmp_path, precision="fp16")
        assert_close(weights(half), weights(exact), 2e-2)
        state = torch.load(tmp_path / "training.pt", weights_only=True)
        assert state["scaler"]["scale"] == 2.0**16

    def test_net_that_fails_with_channels_last_is_trained(self):
        class Viewing(Net):
            def forward(self, images):
                return self.fc(self.features(images).flatten(2).view(len(images), 8, -1).mean(2))

        expected = by_hand(Net(plain=True), lambda name: 0.1)
        assert_close(weights(plain(CLEAN, Viewing(plain=True))), expected[-1])


class TestAverage:
    @pytest.mark.filterwarnings("ignore:ema. with a decay of 0.7")
    @pytest.mark.parametrize(("every", "taken"), [(1, [0, 1, 2, 3, 4]), (2, [1, 3])])
    def test_average_follows_its_formula(self, every, taken):
        path = by_hand(Net(plain=True), lambda name: 0.1, steps=5)
        expected = path[taken[0]]
        for index in taken[1:]:
            expected = {n: 0.7 * value + 0.3 * path[index][n] for n, value in expected.items()}
        net = plain(CLEAN, epochs=5, ema={"decay": 0.7, "every": every})
        assert_close(weights(net), expected)

    @pytest.mark.filterwarnings("ignore:ema. with a decay of 0.7")
    def test_statistics_are_averaged_too(self):
        arguments = {"epochs": 3, "batch_size": 11, "seed": 1}
        path = [plain(CLEAN, Net(), **{**arguments, "epochs": n}) for n in (1, 2, 3)]
        expected = path[0].features[1].running_mean
        for net in path[1:]:
            expected = 0.7 * expected + 0.3 * net.features[1].running_mean
        net = plain(CLEAN, Net(), ema={"decay": 0.7}, **arguments)
        torch.testing.assert_close(net.features[1].running_mean, expected)

    def test_whole_numbers_are_not_averaged(self):
        class Indexed(Net):
            def __init__(self):
                super().__init__()
                self.register_buffer("index", torch.arange(200))

        net = plain(CLEAN, Indexed(), epochs=20, ema={"decay": 0.9})
        assert torch.equal(net.index, torch.arange(200))
        assert int(net.features[1].num_batches_tracked) == 20

    @pytest.mark.filterwarnings("ignore:ema. with a decay of 0.7")
    def test_average_is_measured_and_kept(self, tmp_path):
        net = plain(CLEAN, out=tmp_path, epochs=3, ema={"decay": 0.7}, validation=CLEAN)
        last = xcam.load(tmp_path / "last.safetensors", model=Net(plain=True))
        raw = plain(CLEAN, epochs=3)
        assert not torch.equal(last.fc.weight, raw.fc.weight)
        images, labels = batch()
        loss = F.cross_entropy(last(images), labels)
        assert log(tmp_path)["validation_loss"].iloc[-1] == pytest.approx(float(loss.detach()))
        assert not net.training

    def test_average_before_its_first_step_is_the_net(self):
        assert_same_bits(
            weights(plain(CLEAN, ema={"decay": 0.7, "every": 9})), weights(plain(CLEAN))
        )
