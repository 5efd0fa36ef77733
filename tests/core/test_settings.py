"""Settings check themselves; objects are made by the name of their class and its arguments."""

import copy
import dataclasses
import inspect
import pickle
from dataclasses import InitVar, dataclass
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, Optional

import numpy as np
import pytest
import torch
from torch import Tensor

from xcam.core import Count, Positive, Range, Settings, Share
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


def test_class_with_arbitrary_keywords_gets_all_of_them():
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


def test_missing_argument_is_named_in_the_error():
    with pytest.raises(TypeError, match=r"optimiser SGD: .*params"):
        instantiate({"name": "SGD"}, CLASSES, "optimiser")


@dataclass(frozen=True, eq=False, repr=False)
class Example(Settings):
    count: Count = 3
    rate: Positive | None = None
    share: Share = 0.5
    word: Literal["one", "two"] | None = "one"
    fill: Literal["zero"] | Tensor = "zero"
    shares: tuple[Share, ...] = (0.1, 0.2)
    flag: bool = False
    title: Optional[str] = None  # noqa: UP045
    odd: "int" = 1
    size: Annotated[int, Range(least=1)] | Annotated[float, Range(above=0, most=1)] = 1
    other: Any = None
    preset: InitVar[str | None] = None

    presets: ClassVar = {"fast": {"count": 1, "word": "two"}}


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"count": 0}, ValueError, "count must be an int of at least 1, such as 3, got 0"),
        ({"count": 2.0}, TypeError, "count must be an int of at least 1, such as 3, got 2.0"),
        ({"count": True}, TypeError, "count must be an int of at least 1, such as 3, got True"),
        ({"count": None}, TypeError, "count must be an int of at least 1, such as 3, got None"),
        ({"rate": 0}, ValueError, "rate must be a finite number above 0 or None, got 0"),
        ({"rate": "a"}, TypeError, "rate must be a finite number above 0 or None, got 'a'"),
        ({"rate": float("inf")}, ValueError,
         "rate must be a finite number above 0 or None, got inf"),
        ({"share": float("nan")}, ValueError,
         "share must be a finite number in [0, 1], such as 0.5, got nan"),
        ({"word": "three"}, ValueError, "word must be 'one', 'two' or None, got 'three'"),
        ({"word": 1}, TypeError, "word must be 'one', 'two' or None, got 1"),
        ({"fill": "one"}, ValueError, "fill must be 'zero' or a tensor, got 'one'"),
        ({"fill": 0.0}, TypeError, "fill must be 'zero' or a tensor, got 0.0"),
        ({"shares": (0.1, 2)}, ValueError,
         "shares must be a tuple, each a finite number in [0, 1], such as (0.1, 0.2), "
         "got (0.1, 2)"),
        ({"shares": 0.1}, TypeError,
         "shares must be a tuple, each a finite number in [0, 1], such as (0.1, 0.2), got 0.1; "
         "give (0.1,)"),
        ({"flag": 1}, TypeError, "flag must be True or False, got 1"),
        ({"title": 3}, TypeError, "title must be a string or None, got 3"),
        ({"odd": "3"}, TypeError, "odd must be an int, such as 1, got '3'"),
        ({"size": 1.5}, ValueError,
         "size must be an int of at least 1 or a finite number in (0, 1], such as 1, got 1.5"),
    ],
)  # fmt: skip
def test_settings_refuse_what_their_annotations_do(settings, error, sentence):
    with pytest.raises(error) as caught:
        Example(**settings)
    assert str(caught.value) == f"Example: {sentence}"
    (value,) = settings.values()
    positional = dataclasses.asdict(Example()) | settings
    with pytest.raises(error):
        Example(*positional.values())
    with pytest.raises(error):
        dataclasses.replace(Example(), **{next(iter(settings)): value})


def test_settings_take_what_their_annotations_do():
    chosen = {"count": np.int64(2), "rate": np.float32(0.5), "share": 1, "word": None, "size": 0.5}
    found = Example(**chosen, fill=torch.zeros(3), shares=[0, 1], title="a", other=object())
    assert found.parameters().items() >= chosen.items()
    assert found.shares == (0, 1)


def test_unknown_settings_are_refused_with_the_nearest():
    with pytest.raises(TypeError, match=r"^Example has no parameter 'cuont': did you mean count"):
        Example(cuont=1)


def test_preset_fills_in_plain_fields():
    found = Example(preset="fast", share=0.25)
    assert (found.count, found.word, found.share) == (1, "two", 0.25)
    assert repr(found) == repr(Example(count=1, word="two", share=0.25))
    assert repr(Example(preset="fast", count=1)) == repr(Example(preset="fast"))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"preset": "slow"}, "Example has the presets 'fast', got 'slow'"),
        ({"preset": 3}, "Example has the presets 'fast', got 3"),
        ({"preset": "fast", "count": 3}, "preset 'fast' sets count=1, got count=3 beside it"),
    ],
)
def test_preset_is_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Example(**settings)


def test_settings_are_copied_and_pickled():
    made = Example(count=5, shares=(0.5,))
    for copied in (copy.deepcopy(made), copy.copy(made), pickle.loads(pickle.dumps(made))):
        assert repr(copied) == repr(made)


def test_signature_is_that_of_the_fields():
    assert list(inspect.signature(Example).parameters)[:2] == ["count", "rate"]
    assert inspect.signature(Example).parameters["count"].default == 3


@dataclass(frozen=True)
class HalfKnown(Settings):
    count: int = 3
    figure: "Figure" = None  # noqa: F821 - as if imported under TYPE_CHECKING


def test_annotation_known_to_type_checkers_alone_hides_no_other_field():
    assert HalfKnown(figure="anything").figure == "anything"
    with pytest.raises(
        TypeError, match=r"^HalfKnown: count must be an int, such as 3, got 'three'"
    ):
        HalfKnown(count="three")
