"""A method whose maps are a linear function of the image."""

from dataclasses import dataclass
from typing import ClassVar

from xcam.core import Method, MethodSpec


@dataclass(frozen=True, eq=False, repr=False)
class Multiple(Method):
    """The image itself, several times as large, and a constant added."""

    factor: float = 1.0
    added: float = 0.0

    spec: ClassVar[MethodSpec] = MethodSpec("multiple", "Multiple", "", "control", "none")

    def maps(self, model, images, target):
        return self.factor * images.sum(1) + self.added
