"""Objects by the name of their class and its arguments."""

from fractions import Fraction

import pytest
import torch

from xcam.core.instantiate import instantiate
from xcam.errors import UnknownNameError

CLASSES = {"Fraction": Fraction, "SGD": torch.optim.SGD, "dict": lambda **given: given}


def test_arguments_by_name():
    settings = {"name": "Fraction", "numerator": 3, "denominator": 4}
    assert instantiate(settings, CLASSES, "number") == Fraction(3, 4)
    assert settings == {"name": "Fraction", "numerator": 3, "denominator": 4}


def test_arguments_before_them():
    weights = [torch.zeros(2, requires_grad=True)]
    optimiser = instantiate({"name": "SGD", "lr": 0.25}, CLASSES, "optimiser", weights)
    assert optimiser.param_groups[0]["lr"] == 0.25
    assert optimiser.param_groups[0]["params"] == weights


def test_a_class_that_takes_any():
    assert instantiate({"name": "dict", "any": 1}, CLASSES, "thing") == {"any": 1}


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ("SGD", TypeError, "optimiser must be a mapping with a name, .*'Fraction'.* got 'SGD'"),
        ({"lr": 1}, TypeError, "optimiser must be a mapping with a name"),
        ({"name": 3}, TypeError, "optimiser must be a mapping with a name"),
        ({"name": "sgd"}, UnknownNameError, "no optimiser is called 'sgd'"),
        ({"name": "SGD", "momentun": 1}, TypeError,
         "optimiser SGD has no argument 'momentun': did you mean momentum"),
        ({"name": "SGD", "params": []}, TypeError, "optimiser SGD has no argument 'params'"),
        ({"name": "SGD", "lr": -1.0}, ValueError, "optimiser SGD: Invalid learning rate: -1.0"),
    ],
)  # fmt: skip
def test_refusals(settings, error, sentence):
    with pytest.raises(error, match=sentence):
        instantiate(settings, CLASSES, "optimiser", [torch.zeros(2, requires_grad=True)])


def test_a_missing_argument():
    with pytest.raises(TypeError, match=r"optimiser SGD: .*params"):
        instantiate({"name": "SGD"}, CLASSES, "optimiser")
