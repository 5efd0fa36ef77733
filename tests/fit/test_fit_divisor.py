"""Parts of a step add up to the step, whatever the criterion divides by; and a slow average."""

import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from trainings import Net, Noisy, assert_close, log, plain, weights

from xcam._fit.divisor import Divisor
from xcam.errors import XcamWarning

DATA = Noisy(11, noise=0.0)
WEIGHT = torch.tensor([0.1, 2.0, 7.0])
STEPS = {"epochs": 2, "batch_size": 8, "seed": 3}  # the second step has 3 images


class Balanced(nn.Module):
    """A criterion of somebody's own, that divides by what it likes: a power of the weights."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor([3.0, 1.0, 0.2]))

    def forward(self, logits, labels):
        scale = self.scale[labels] ** 2
        return (scale * F.multi_margin_loss(logits, labels, reduction="none")).sum() / scale.sum()


CRITERIA = {
    "weight": nn.CrossEntropyLoss(weight=WEIGHT),
    "ignored class": nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=2),
    "first class ignored": nn.CrossEntropyLoss(ignore_index=0),
    "smoothing": nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.2),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "weighted sum": nn.CrossEntropyLoss(weight=WEIGHT, reduction="sum"),
    "function": partial(F.cross_entropy, weight=WEIGHT),
    "lambda": lambda logits, labels: F.nll_loss(logits.log_softmax(1), labels, WEIGHT),
    "own": Balanced(),
    "plain": nn.CrossEntropyLoss(),
}
each = pytest.mark.parametrize("name", CRITERIA)


@each
@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulated_parts_of_a_criterion_are_one_step(name, accumulate):
    """Also of a last step with fewer images, and of parts in which no image counts."""
    optimizer = {"name": "SGD", "lr": 0.01}
    arguments = {"criterion": CRITERIA[name], "optimizer": optimizer, **STEPS}
    whole = plain(DATA, **arguments)
    parts = plain(DATA, accumulate=accumulate, **arguments)
    assert_close(weights(parts), weights(whole), 1e-6)
    start = weights(Net(plain=True))
    assert max(float((v - start[n]).abs().max()) for n, v in weights(whole).items()) > 1e-4


@pytest.mark.parametrize("name", ["weight", "ignored class", "weighted sum"])
def test_logged_loss_of_accumulated_parts_is_that_of_whole_steps(name, tmp_path):
    for accumulate in (1, 3):
        arguments = {"criterion": CRITERIA[name], "out": tmp_path / str(accumulate), **STEPS}
        plain(DATA, accumulate=accumulate, optimizer={"name": "SGD", "lr": 1e-3}, **arguments)
    whole, parts = (log(tmp_path / folder)["train_loss"] for folder in ("1", "3"))
    assert parts.tolist() == pytest.approx(whole.tolist(), rel=1e-6)


def test_gradient_is_clipped_as_the_whole_step():
    arguments = {"criterion": CRITERIA["weight"], "clip": 0.1, **STEPS}
    whole = plain(DATA, **arguments)
    assert_close(weights(plain(DATA, accumulate=2, **arguments)), weights(whole), 1e-6)


@each
def test_divisor_is_what_the_criterion_divides_by(name):
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 1])
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    found = Divisor(CRITERIA[name], 3)
    expected = {"sum": "sum", "weighted sum": "sum", "plain": "plain"}.get(name, "weighted")
    assert found.kind == expected
    first, second = found.measure(logits, labels), found.measure(logits[3:], labels[3:])
    if "sum" in name:
        assert float(first) == float(second) == 1
        return
    scale = {
        "ignored class": WEIGHT * torch.tensor([1, 1, 0]),
        "first class ignored": torch.tensor([0.0, 1, 1]),
        "own": Balanced().scale ** 2,
        "plain": torch.ones(3),
    }.get(name, WEIGHT)
    torch.testing.assert_close(
        first / second, scale[labels].sum() / scale[labels[3:]].sum(), rtol=1e-6, atol=0
    )


def test_criterion_across_images_is_said_where_it_is_cut():
    def spread(logits, labels):
        return F.cross_entropy(logits, labels) - 0.1 * logits.var(0, correction=0).mean()

    with pytest.warns(XcamWarning, match="in 2 parts, .* no mean or sum over images"):
        plain(DATA, criterion=spread, accumulate=2, **STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain(DATA, criterion=spread, **STEPS)


def test_validation_loss_of_weights_does_not_hang_on_batches(tmp_path):
    """A batch of the ignored class alone has no mean."""
    validation = Noisy(13, noise=0.0)
    for name in ("weight", "ignored class"):
        losses = []
        for size in (2, 11):
            arguments = {"batch_size": size, "optimizer": {"name": "SGD", "lr": 1e-12}}
            folder = tmp_path / f"{name} {size}"
            data = Noisy(11, noise=0.0)
            data.labels = [0, 1] * 5 + [0]
            plain(data, out=folder, criterion=CRITERIA[name], validation=validation, **arguments)
            losses.append(log(folder)["validation_loss"].item())
        images, labels = zip(*validation, strict=True)
        logits = Net(plain=True)(torch.stack(images))
        expected = float(CRITERIA[name](logits, torch.tensor(labels)).detach())
        assert losses == pytest.approx([expected] * 2, rel=1e-5)


class TestSlowAverage:
    def run(self, epochs, **ema):
        return plain(DATA, epochs=epochs, ema=ema)

    def test_decay_too_high_for_the_steps_is_said_with_one_that_helps(self):
        with pytest.warns(XcamWarning, match="99% of the average after 10 updates") as caught:
            self.run(10, decay=0.999)
        assert "give a decay of at most 0.599, or 'warmup': True" in str(caught[0].message)
        self.run(10, decay=0.599)
        self.run(10, decay=0.999, warmup=True)

    def test_short_average_of_some_steps_is_said(self):
        with pytest.warns(XcamWarning, match="66% of the average after 5 updates"):
            self.run(15, decay=0.9, every=3)

    def test_warm_up_follows_its_formula(self):
        path = [weights(plain(DATA, epochs=n)) for n in range(1, 7)]
        expected = path[0]
        for n, now in enumerate(path[1:], 1):
            decay = min(0.3, (1 + n) / (10 + n))
            expected = {k: decay * v + (1 - decay) * now[k] for k, v in expected.items()}
        assert_close(weights(self.run(6, decay=0.3, warmup=True)), expected)

    def test_warm_up_goes_on_after_a_stop(self, tmp_path):
        ema = {"decay": 0.9, "warmup": True}
        plain(DATA, epochs=4, ema=ema, out=tmp_path)
        assert_close(
            weights(plain(DATA, epochs=8, ema=ema, out=tmp_path)),
            weights(plain(DATA, epochs=8, ema=ema)),
            0,
        )

    def test_warm_up_is_true_or_false(self):
        with pytest.raises(TypeError, match="ema: warmup must be True or False, got 5"):
            self.run(1, decay=0.9, warmup=5)
