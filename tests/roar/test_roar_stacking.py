"""Nets that are trained at once end with the weights that each gets alone."""

import pytest
import torch
from retrainings import FIT, TEST, TRAIN, Bright, Net
from torch import nn

from xcam._fit import fit
from xcam._roar.images import PlainImages
from xcam._roar.plan import Retraining
from xcam._roar.removal import Removal
from xcam._roar.stacking import Stack, StackError, train_stack
from xcam._roar.training import Trainer
from xcam.models.whitebox.simple_cnn import SimpleCNN

ENDS = [Retraining(None, "remove", end, repeat) for repeat in (0, 1) for end in (0.0, 1.0)]


def trainer(make_model, train=TRAIN, validation=None, **settings):
    splits = {"train": train, "test": TEST}
    if validation is not None:
        splits["validation"] = validation
    return Trainer(
        make_model,
        {**FIT, "epochs": 2, **settings},
        3,
        "cpu",
        {name: PlainImages.open(data, name) for name, data in splits.items()},
        True,
        Removal("pixel", "zero", "signed", False, 0),
        torch.zeros(3, 1, 1),
        None,
    )


def together_and_alone(made, retrainings=ENDS[:3]):
    begun = [made._begin(one) for one in retrainings]
    starts, nets = (list(part) for part in zip(*begun, strict=True))
    stacked = train_stack(starts, nets, made.settings["epochs"])
    validation = "validation" in made.splits
    alone = [
        fit(
            made.make_net(one.repeat),
            made.mask(one, "train"),
            validation=made.mask(one, "validation") if validation else None,
            seed=made.seed + one.repeat,
            device="cpu",
            **made.settings,
        )
        for one in retrainings
    ]
    return [each.net.state_dict() for each in stacked], [net.state_dict() for net in alone]


def assert_equal(pairs, tolerance):
    for found, expected in zip(*pairs, strict=True):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance)


SETTINGS = {
    "plain": {},
    "schedule": {
        "schedule": {"name": "CosineAnnealingLR", "T_max": 2},
        "optimizer": {"name": "Adam", "lr": 0.01, "eps": 1e-3},
        "groups": {r"fc\.": {"lr_factor": 2.0}},
        "label_smoothing": 0.1,
        "drop_last": True,
    },
    "mixed": {"mix": {"mixup": 0.4}},
    "validation": {"epochs": 3, "validation": Bright(9, seed=2)},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_weights_and_statistics_are_those_of_one_by_one(name):
    made = trainer(lambda: Net(double=True), **SETTINGS[name])
    assert_equal(together_and_alone(made), 1e-12)


def test_random_transforms_draw_what_they_draw_alone():
    noisy = Bright(transform=lambda image: image + 0.1 * torch.randn(image.shape))
    assert_equal(together_and_alone(trainer(lambda: Net(double=True), noisy)), 1e-12)


def test_simple_cnn_in_float32():
    made = trainer(lambda: SimpleCNN(2, 3, 8), epochs=1)
    # Images that are all alike would leave batch norm with rounding errors alone.
    assert_equal(together_and_alone(made, ENDS[::2]), 1e-3)


class Double(nn.Module):
    """A net in float64, of images in float32."""

    def __init__(self, net):
        super().__init__()
        self.net = net.double()

    def forward(self, images):
        return self.net(images.double())


@pytest.mark.parametrize("attention", ["cam", "cbam"])
def test_simple_cnn_in_float64(attention):
    made = trainer(lambda: Double(SimpleCNN(2, 3, 8, attention)), epochs=1, batch_size=20)
    assert_equal(together_and_alone(made, ENDS[::2]), 1e-12)


def make_biased():
    """Make a SimpleCNN whose batch norms give positive numbers for images that are all alike.

    Zeros, which their first biases are, leave the ReLU behind them to rounding.
    """
    net = SimpleCNN(2, 3, 8)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 0.1)
    return Double(net)


def test_weights_are_equal_also_where_everything_is_removed():
    made = trainer(make_biased, epochs=2, batch_size=20)
    assert_equal(together_and_alone(made, ENDS[1::2]), 1e-9)


class Tied(Net):
    """Uses a layer twice, under two names, before a part that is not trained."""

    def __init__(self):
        super().__init__(double=True)
        self.first, self.second = nn.Linear(2, 2).double(), nn.Linear(2, 2).double()
        self.second.weight = self.first.weight
        self.norm = nn.GroupNorm(1, 2).double().requires_grad_(False)

    def forward(self, images):
        return self.norm(self.second(self.first(super().forward(images)).relu()))


def test_tied_and_frozen_weights_stay_so():
    made = trainer(Tied)
    pairs = together_and_alone(made)
    assert_equal(pairs, 1e-12)
    for state in pairs[0]:
        assert torch.equal(state["first.weight"], state["second.weight"])
        assert state["norm.weight"].tolist() == [1, 1]


def test_nets_of_images_that_are_all_alike_are_stacked():
    made = trainer(lambda: SimpleCNN(2, 3, 8), epochs=1)
    outcomes = made.run([ENDS[1], ENDS[3]])
    assert [each.parallel for each in outcomes] == [2, 2]
    assert not made.notes


def test_answers_are_those_of_one_by_one():
    made = trainer(Net)
    outcomes = made.run(ENDS)
    assert [each.parallel for each in outcomes] == [4] * 4
    alone = [made.run([one])[0] for one in ENDS]
    assert [each.correct for each in outcomes] == [each.correct for each in alone]
    assert not made.notes


class Drifting(nn.Module):
    """Keeps a count that no stack can: logits depend on how often it ran."""

    def __init__(self):
        super().__init__()
        self.fc, self.runs = nn.Linear(3 * 64, 2), 0

    def forward(self, images):
        self.runs += 1
        return self.fc(images.flatten(1)) * self.runs


@pytest.mark.parametrize(
    ("make_model", "settings", "reason"),
    [
        (lambda: Net(dropout=0.5), {}, "random numbers in training, as dropout"),
        (Net, {"clip": 1.0}, "clip"),
        (Net, {"ema": {"decay": 0.5}}, "ema"),
        (Net, {"precision": "fp16"}, "fp16"),
        (Net, {"optimizer": {"name": "Adafactor"}}, "Adafactor"),
    ],
)
def test_what_cannot_be_stacked_is_trained_one_by_one_and_said(make_model, settings, reason):
    made = trainer(make_model, epochs=1, **{"precision": "full"} | settings)
    if settings.get("precision") == "fp16":
        with pytest.raises(StackError, match=reason):
            made._run_stack(ENDS[:2])
        return
    outcomes = made.run(ENDS[:2])
    assert [each.parallel for each in outcomes] == [1, 1]
    (note,) = made.notes
    assert note.startswith("the nets are trained one by one in spite of parallel: ")
    assert reason in note
    assert "{" not in note


def test_nets_of_other_structures_or_other_logits_are_refused():
    with pytest.raises(StackError, match="different structures"):
        Stack([Net(), nn.Linear(3, 2)])
    nets = [Drifting(), Drifting()]
    nets[0].runs = 3
    with pytest.raises(StackError, match="other logits"):
        Stack(nets).check(torch.rand(4, 3, 8, 8))


def test_the_check_leaves_statistics_as_they_were():
    stack = Stack([Net(), Net()])
    before = stack.get_state(0)
    stack.check(torch.rand(4, 3, 8, 8))
    for name, value in stack.get_state(0).items():
        assert torch.equal(value, before[name])


def test_one_that_diverges_harms_no_other():
    made = trainer(Net, optimizer={"name": "SGD", "lr": 1e30}, epochs=2)
    found = made.run(ENDS[:2])
    assert all(each.correct is None and "not finite" in each.error for each in found)
    alone = made.run(ENDS[:1])[0]
    assert alone.correct is None
    assert "not finite" in alone.error
