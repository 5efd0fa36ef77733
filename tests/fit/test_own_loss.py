"""A net that brings its own loss is trained by it."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

import xcam
from xcam.models import Normalized, load
from xcam.models.toy import GapNet

IMAGES = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(IMAGES, torch.arange(12) % 5)
SETTINGS = {"epochs": 2, "batch_size": 4, "device": "cpu"}


class Penalized(GapNet):
    """The cross-entropy, and the squared weights of the classifier."""

    def training_loss(self, images, labels):
        logits = self(images)
        return F.cross_entropy(logits, labels) + self.fc.weight.square().sum(), logits


class Forgetful(GapNet):
    def training_loss(self, images, labels):
        return F.cross_entropy(self(images), labels)


def step_by_hand(net, images, labels):
    """One step of SGD, lr 0.1, of the cross-entropy with the squared weights."""
    loss = F.cross_entropy(net(images), labels) + net.fc.weight.square().sum()
    gradients = torch.autograd.grad(loss, [*net.parameters()])
    with torch.no_grad():
        for parameter, gradient in zip(net.parameters(), gradients, strict=True):
            parameter -= 0.1 * gradient
    return net


@pytest.mark.parametrize("normalized", [False, True])
def test_step_is_that_of_the_nets_own_loss(normalized):
    net = Normalized(Penalized(), (0.4,), (0.5,)) if normalized else Penalized()
    optimizer = {"name": "SGD", "lr": 0.1}
    trained = xcam.fit(net, DATA, epochs=1, batch_size=12, optimizer=optimizer, device="cpu")
    images = (IMAGES - 0.4) / 0.5 if normalized else IMAGES
    expected = step_by_hand(Penalized(), images, DATA.tensors[1])
    found = (trained.model if normalized else trained).state_dict()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6)


def test_a_criterion_takes_its_place():
    criterion = torch.nn.CrossEntropyLoss()
    found = xcam.fit(Penalized(), DATA, criterion=criterion, **SETTINGS)
    expected = xcam.fit(GapNet(), DATA, criterion=criterion, **SETTINGS)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)


def test_validation_measures_the_nets_own_loss(tmp_path):
    net = xcam.fit(Penalized(), DATA, validation=DATA, out=tmp_path, **SETTINGS)
    log = (tmp_path / "log.csv").read_text().splitlines()
    last = dict(zip(log[0].split(","), log[-1].split(","), strict=True))
    last_net = xcam.load(tmp_path / "last.safetensors", model=Penalized())
    with torch.no_grad():
        expected, _ = last_net.training_loss(IMAGES, DATA.tensors[1])
    assert float(last["validation_loss"]) == pytest.approx(float(expected), abs=1e-4)
    assert type(net) is Penalized


def test_warn_is_trained_by_its_likelihood_and_penalty():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = load("xcam:warn", num_classes=5, depth=10, widen=1, penalty=1.0)
    labels = DATA.tensors[1]

    def measure(net):
        with torch.no_grad():
            return float(net.model.training_loss(net.normalize(IMAGES), labels)[0])

    trained = xcam.fit(net, DATA, **{**SETTINGS, "epochs": 6})
    assert measure(trained) < measure(net)
    mixed = xcam.fit(net, DATA, mix={"mixup": 0.2}, **SETTINGS)
    assert measure(mixed) != measure(net)


@pytest.mark.parametrize(
    ("net", "settings", "error", "words"),
    [
        (
            Penalized(),
            {"label_smoothing": 0.1},
            ValueError,
            "the loss is the model's own training_loss; leave out label_smoothing, or give a",
        ),
        (
            Forgetful(),
            {},
            TypeError,
            "training_loss of the model must return the loss and the logits of net.images., or "
            "None in place of the logits, got Tensor",
        ),
    ],
)
def test_what_does_not_fit_is_refused(net, settings, error, words):
    with pytest.raises(error, match=words):
        xcam.fit(net, DATA, **SETTINGS, **settings)
