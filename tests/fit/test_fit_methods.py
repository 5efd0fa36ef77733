"""Training the head of a method: its loss, its best epoch, methods that nobody has registered."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from trainings import CLASSES, Net, Noisy, assert_same_bits, log, plain, train, weights

import xcam
from xcam.core import Method, MethodSpec, TrainableMethod
from xcam.methods.trainable.backbone import Backbone
from xcam.models.toy import GapNet
from xcam.registry import installed


class TestMethods:
    def test_head_is_trained_and_the_classifier_stays_frozen(self, toy_method, tmp_path):
        arguments = {"epochs": 1, "groups": {"head": {"lr_factor": 2.0}}}
        net = train(tmp_path, method="toy_head", scale=3.0, **arguments)
        assert net.method == toy_method(scale=3.0)
        assert net.fitted
        assert not net.classifier.training
        assert_same_bits(weights(net.classifier), weights(Net()))  # frozen, in eval mode
        again = xcam.load(tmp_path / "best.safetensors", model=Net())
        assert_same_bits(weights(again), weights(net))
        assert log(tmp_path)["train_accuracy"].between(0, 1).all()

    def test_attaching_draws_by_the_seed(self, toy_method):
        nets = [plain(Noisy(6), method="toy_head", seed=seed) for seed in (0, 0, 1)]
        assert torch.equal(nets[0].head.weight, nets[1].head.weight)
        assert not torch.equal(nets[0].head.weight, nets[2].head.weight)

    def test_attached_head_is_trained_further(self, toy_method):
        net = plain(Noisy(6), method="toy_head")
        more = plain(Noisy(6), net)
        assert more.method == net.method
        assert not torch.equal(more.head.weight, net.head.weight)
        with pytest.raises(ValueError, match=r"carries the head of ToyHead\(scale=1.0\) already"):
            plain(Noisy(6), net, method="toy_head", scale=2.0)

    def test_method_without_training_is_refused(self):
        with pytest.raises(TypeError, match="gradcam needs no training"):
            plain(Noisy(6), method="gradcam")

    def test_loss_arguments_beside_a_method_are_refused(self, toy_method):
        with pytest.raises(ValueError, match="the loss is that of the method toy_head"):
            plain(Noisy(6), method="toy_head", label_smoothing=0.1)

    def test_validation_loss_is_the_methods_too(self, toy_method, tmp_path):
        held_out = Noisy(9, seed=1, noise=0.0)
        net = plain(Noisy(6), method="toy_head", scale=3.0, validation=held_out, out=tmp_path)
        images = torch.stack([image for image, _ in held_out])
        loss = 3 * F.cross_entropy(net(images), torch.tensor(held_out.labels))
        assert log(tmp_path)["validation_loss"].item() == pytest.approx(float(loss.detach()))

    def test_unregistered_method_is_trained_and_loaded_into_its_net(self, tmp_path):
        net = plain(Noisy(6), method=ToyHead(), validation=Noisy(3), out=tmp_path)
        again = xcam.load(tmp_path / "best.safetensors", model=net)
        assert again.method == net.method
        with pytest.raises(xcam.errors.UnknownNameError, match="'toy_head', which is not inst"):
            xcam.load(tmp_path / "best.safetensors", model=Net(plain=True))

    def test_failing_validation_loss_is_refused_before_the_first_step(self, tmp_path):
        data = Noisy(6)
        with pytest.raises(ValueError, match="loss of toy_head fails on a validation image"):
            plain(data, method=Sloped(), validation=Noisy(3), out=tmp_path / "run")
        assert set(data.loaded) == {0}
        assert not (tmp_path / "run").exists()
        plain(data, method=Sloped())

    def test_validation_batches_of_sorted_images_mix_the_classes(self, monkeypatch):
        """Held out images come class by class, and in every epoch in the same mixed order."""
        held_out, seen, loss = Noisy(12, seed=1, noise=0.0), [], ToyHead.loss
        held_out.labels = sorted(held_out.labels)

        def watched(method, module, images, labels):
            if not module.training and len(labels) > 1:
                seen.append(labels.tolist())
            return loss(method, module, images, labels)

        monkeypatch.setattr(ToyHead, "loss", watched)
        plain(Noisy(6), method=ToyHead(), validation=held_out, epochs=2)
        assert len(seen) == 4
        assert seen[:2] == seen[2:]
        assert sorted(seen[0] + seen[1]) == held_out.labels
        assert min(len(set(labels)) for labels in seen) > 1

    def test_held_out_images_pass_no_more_often_than_they_must(self):
        """Logits are of the loss's own pass; where no logit changes, of one more."""
        for method, passes in ((ToyHead(), 1), (Beside(), 2)):
            model, seen = Net(plain=True), Sizes()
            model.features.register_forward_hook(seen)
            plain(Noisy(6), model, method=method, validation=Noisy(8, seed=1), batch_size=3)
            batches = seen.found.count(3)
            assert batches == 2 + 2 * passes  # two steps; eight images are two batches and a rest

    def test_where_no_logit_changes_the_lowest_loss_is_the_best(self, tmp_path):
        """Validation images are of another class: there the loss rises from the first epoch on."""
        data, held_out = Noisy(9, noise=0.0), Noisy(9, seed=1, noise=0.0)
        data.labels, held_out.labels = [0] * 9, [1] * 9
        arguments = {"data": data, "method": Beside(), "validation": held_out}
        net = plain(epochs=3, out=tmp_path, **arguments)
        table = log(tmp_path)
        assert table["validation_accuracy"].nunique() == 1
        assert table["validation_loss"].is_monotonic_increasing
        assert table["validation_loss"].nunique() == 3
        assert_same_bits(weights(net), weights(plain(epochs=1, **arguments)))
        assert_same_bits(weights(plain(epochs=3, **arguments)), weights(net))


@pytest.mark.parametrize("method", ["lficam", "abn", "lcam_fm", "lcam_img", "calm", "castream"])
def test_head_is_averaged_and_resumed_bit_for_bit(method, tmp_path):
    arguments = {"model": GapNet(), "method": method, "ema": {"decay": 0.5}, "batch_size": 3}
    arguments |= {"validation": Noisy(6, seed=1), "epochs": 2}
    whole = plain(Noisy(6), out=tmp_path / "whole", **arguments)
    plain(Noisy(6), out=tmp_path / "parts", **arguments | {"epochs": 1})
    parts = plain(Noisy(6), out=tmp_path / "parts", **arguments)
    assert_same_bits(weights(parts), weights(whole))
    assert {name.split(".")[0] for name in weights(whole)} == {"classifier", "head"}
    without = plain(Noisy(6), **arguments | {"ema": None})
    assert not torch.equal(*(next(net.head.parameters()) for net in (whole, without)))
    last = [xcam.load(tmp_path / out / "last.safetensors", GapNet()) for out in ("whole", "parts")]
    assert_same_bits(*map(weights, last))


class Sizes:
    """A hook that notes how many images pass, also on copies of the net."""

    def __init__(self):
        self.found = []

    def __call__(self, module, inputs, output):
        self.found.append(len(output))

    def __deepcopy__(self, memo):
        return self


@dataclass(frozen=True, repr=False)
class ToyHead(TrainableMethod):
    spec: ClassVar[MethodSpec] = MethodSpec(
        "toy_head", "Toy head", "", family="trainable", cost="1 forward"
    )
    scale: float = 1.0

    def attach(self, model, like=None):
        head = nn.Conv2d(8, CLASSES, 1)
        return Backbone(model, like).with_head(head, self, frozen=["classifier"])

    def logits(self, net, images):
        return net.head(net.classifier.features(images)).mean((2, 3))

    def loss(self, net, images, labels):
        logits = net(images)
        return self.scale * F.cross_entropy(logits, labels), logits

    def maps(self, model, images, target):
        return model.head(model.classifier.features(images))[:, 0]


@dataclass(frozen=True, repr=False)
class Beside(ToyHead):
    """Its head decides nothing, and its loss meets no logits of the net."""

    def logits(self, net, images):
        return net.classifier(images)

    def loss(self, net, images, labels):
        return F.cross_entropy(ToyHead.logits(self, net, images), labels), None


@dataclass(frozen=True, repr=False)
class Sloped(ToyHead):
    """Its loss looks at its own slope."""

    def loss(self, net, images, labels):
        logits = net(images)
        (slope,) = torch.autograd.grad(logits.sum(), net.head.weight, create_graph=True)
        return F.cross_entropy(logits, labels) + slope.square().mean(), logits


@pytest.fixture
def toy_method(monkeypatch):
    assert issubclass(ToyHead, Method)
    monkeypatch.setitem(installed().methods, "toy_head", ToyHead)
    return ToyHead
