"""`Method` and what it declares about itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor, nn

from xcam.core.settings import Settings

if TYPE_CHECKING:
    from xcam.core.target import Target

__all__ = ["Family", "Method", "MethodSpec", "Reduce", "SavedMethod", "TrainableMethod"]

Family = Literal["cam", "perturbation", "gradient", "control", "trainable"]
Reduce = Literal["sum", "abs_sum", "abs_max"]


@dataclass(frozen=True)
class MethodSpec:
    """What cannot be derived about a method; every flag is checked by `xcam.testing`.

    Attributes:
        name: The name in the registry, lower case, such as `"gradcam"`.
        title: The name in print, such as `"Grad-CAM"`.
        paper: Authors, year and arXiv number or venue of the source; empty for plain controls.
        family: What the map is made from.
        cost: Passes an image, in words, such as `"1 forward + tail backward"`.
        class_specific: The map depends on the target.
        stochastic: The map depends on a `seed` field, and on nothing else that is random.
        signed: The map may hold negative values.
        alters_model: The method works on a changed copy of the model.
        normalized: The map already lies in [0, 1].
        exceptions: Contract checks that the method cannot keep, each with the reason.
        aliases: Other names in the registry, such as `"ig"`; case, `-` and `_` never matter.
    """

    name: str
    title: str
    paper: str
    family: str
    cost: str
    class_specific: bool = True
    stochastic: bool = False
    signed: bool = True
    alters_model: bool = False
    normalized: bool = False
    exceptions: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()


class Method(Settings, ABC):
    """A way to explain an image classifier: a frozen dataclass of hyper-parameters.

    Subclasses are `@dataclass(frozen=True)`, final, set `spec`, and implement `maps`. Four field
    names carry a meaning for whoever runs the method: `layer` (filled in with the model's default
    layer when None), `score` (what of the output is explained), `reduce` (how channels of a pixel
    map become one), and `seed` (the only source of randomness).
    """

    spec: ClassVar[MethodSpec]

    @abstractmethod
    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Explains one chunk of images.

        The model is in eval mode with frozen parameters (see `xcam.engine.untouched`), and runs
        only through `xcam.engine.forward`. A method that makes a clean pass hands its output to
        `target.bind`.

        Args:
            model: From images to scores.
            images: (B, C, H, W), floating point, finite.
            target: What to explain of each of the B images.

        Returns:
            Raw signed maps: (B, h, w) at any resolution, or (B, C, H, W), a value an element.
        """


class TrainableMethod(Method):
    """A method whose map comes from a head that is trained with, or after, the classifier.

    The net that carries a head says so in two plain attributes: `method`, this object with every
    field that shapes the head filled in, and `fitted`, whether the head has been trained.
    `xcam.fit` and `xcam.load` set both; `xcam.explain` refuses a head that is not fitted. A file
    holds the fields alone: `attach` must build the same structure from them and the backbone.
    """

    @abstractmethod
    def attach(self, model: nn.Module) -> nn.Module:
        """Returns a new classifier that carries the head; `model` stays as it was.

        What it draws comes from torch's global generator, which `xcam.fit` seeds.
        """

    @abstractmethod
    def loss(self, module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """The training loss of a batch: a scalar, the mean over the images.

        `xcam.fit` calls it with the module in train mode, under autocast where half precision is
        asked for, and takes what the module's own first pass returns for the logits that it shows
        as running accuracy; on validation images in eval mode, without gradients, likewise. Parts
        that stay frozen have `requires_grad=False`; those that must stay in eval mode are the
        module's to keep there, by a `train` of its own.

        Args:
            module: What `attach` returned.
            images: (B, C, H, W).
            labels: (B,) int64; with `fit(…, mix=…)` (B, K) shares of the classes in mixed images.
        """


@dataclass(frozen=True)
class SavedMethod:
    """The name and hyper-parameters of a method that is not installed here, or is none of ours."""

    name: str
    values: tuple[tuple[str, Any], ...] = ()

    @property
    def spec(self) -> MethodSpec:
        """Return a spec of which only the name and the title are known."""
        return MethodSpec(self.name, self.name, paper="", family="unknown", cost="unknown")

    def parameters(self) -> dict[str, Any]:
        """Return the hyper-parameters by name, as they were saved."""
        return dict(self.values)
