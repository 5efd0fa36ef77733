"""`Method` and what it declares about itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor, nn

from xcam.core.settings import Settings
from xcam.core.several import compute_class_loss
from xcam.core.target import Target, extract_logits

if TYPE_CHECKING:
    from xcam.core.headed import Headed

__all__ = ["FAMILIES", "Method", "MethodSpec", "Reduce", "SavedMethod", "TrainableMethod"]

FAMILIES = ("cam", "perturbation", "gradient", "attention", "control", "trainable")
"""The families of xcam's own methods, in the order of lists and tables; others come after."""
Reduce = Literal["sum", "abs_sum", "abs_max"]


@dataclass(frozen=True)
class MethodSpec:
    """Facts about a method that cannot be derived; every flag is checked by `xcam.testing`.

    Attributes:
        name: The name in the registry, lower case, such as `"gradcam"`.
        title: The name in print, such as `"Grad-CAM"`.
        paper: Authors, year and arXiv number or venue of the source; empty for plain controls.
        family: What the map is made from: one of `FAMILIES`, or a word of your own.
        cost: Passes an image, in words, such as `"1 forward + tail backward"`.
        class_specific: The map depends on the target.
        stochastic: The map depends on a `seed` field, and on nothing else that is random.
        signed: The map may hold negative values.
        alters_model: The method works on a changed copy of the model.
        alters_prediction: The head of a trainable method changes the logits of the classifier that
            it is attached to.
        normalized: The map already lies in [0, 1].
        exceptions: Contract checks that the method cannot keep, each with the reason.
        net: Where the method explains only nets with modules of a kind: arguments of
            `xcam.models.load` that make a small one, of three channels, for the contract's checks,
            such as `{"name": "xcam:ran", "width": 4}`.
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
    alters_prediction: bool = False
    normalized: bool = False
    exceptions: Mapping[str, str] = field(default_factory=dict)
    net: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()


class Method(Settings, ABC):
    """A way to explain an image classifier: a frozen dataclass of hyper-parameters.

    Subclasses are `@dataclass(frozen=True)`, final, set `spec`, and implement `maps`. Six field
    names carry a meaning for whoever runs the method: `layer` (filled in with the model's default
    layer when None; of several layers, the method's maps are fused), `layers` (replaced by their
    names), `output` (which reading of the model is explained), `reduce` (how channels of
    a pixel map become one), `seed` (the only source of randomness), and `base` (another method that
    is run: a name, or a pair of name and settings, is replaced by the object, and its layer is
    filled in).
    """

    spec: ClassVar[MethodSpec]

    @abstractmethod
    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return the maps of one chunk of images.

        The model is in eval mode with frozen parameters (see `xcam.engine.untouched`), and runs
        only through `xcam.engine.forward.call`. A method that makes a clean pass hands its output
        to `target.bind`.

        Args:
            model: From images to scores.
            images: (B, C, H, W), floating point, finite.
            target: What to explain of each of the B images.

        Returns:
            Raw signed maps: (B, h, w) at any resolution, or (B, C, H, W), a value an element.
        """


class TrainableMethod(Method):
    """A method whose map comes from a head that is trained with, or after, the classifier.

    `attach` puts the head around a classifier, in a `Headed`, whose logits are those of `logits`.
    That net's `method` is this object with every field filled in that shapes the head, and a file
    holds these fields alone: `attach` must build the same structure from them and the classifier.
    `xcam.methods.trainable` has what most heads need: `Backbone`, to attach them where they belong,
    and `tapped`, to read and change features in a pass.

    Attributes:
        replaces: Whether no classifier is left without the head: what the method does not use of
            the one that was given is gone, and it gives the logits itself.
    """

    replaces: ClassVar[bool] = False

    @abstractmethod
    def attach(self, model: nn.Module, like: Tensor | None = None) -> nn.Module:
        """Return a new classifier that carries the head; `model` stays as it was.

        What is drawn comes from torch's global generator, which `xcam.fit` seeds.

        Args:
            model: From images to scores, in any wrapper.
            like: An image (1, C, H, W) such as the net will take, of which the shape matters alone:
                features of other images may have other sizes. None for what the model says of its
                images, or else for 224 pixels a side.

        Returns:
            A `Headed`; inside the model's `Normalized`, where it has one.
        """

    def logits(self, net: Headed, images: Tensor) -> Tensor:
        """Return the logits (B, K) of normalized images (B, C, H, W): the classifier's own.

        A method whose head changes the prediction (`spec.alters_prediction`) overrides it.
        """
        return extract_logits(net.classifier(images), len(images))

    def loss(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the training loss of a batch, and the logits that were met on the way.

        This one is that of the logits alone, `xcam.core.compute_class_loss`, in whose place
        `xcam.fit` takes `criterion` and `label_smoothing`. A method that learns by another loss
        overrides it.

        `xcam.fit` calls it with the net in train mode, under autocast where half precision is asked
        for; on validation images in eval mode and without gradients. What shapes the head is to be
        read from the net's own `method`; only weights of the loss are those of this object, of
        which fields may be left open.

        Args:
            net: What `attach` returned: a `Headed`, or a `Normalized` around it.
            images: (B, C, H, W), not normalized.
            labels: (B,) int64; with `fit(…, mix=…)` (B, K) shares of the classes in mixed images;
                of images with several labels (B, K) bool, which `xcam.core.compute_class_loss`
                takes, too.

        Returns:
            The loss, a scalar, the mean over the images; and the logits (B, K) of `net(images)`,
            by which `xcam.fit` tells the accuracy, or None if the loss does not need them.
        """
        logits = extract_logits(net(images), len(images))
        return compute_class_loss(logits, labels), logits


@dataclass(frozen=True)
class SavedMethod:
    """The name and settings of a method that is not installed here, or is not an xcam method.

    Attributes:
        name: The name of the method.
        values: Its settings by name, as they were saved.
        is_foreign: The maps were made elsewhere: by no method that could be installed.
    """

    name: str
    values: tuple[tuple[str, Any], ...] = ()
    is_foreign: bool = field(default=False, repr=False)

    @property
    def spec(self) -> MethodSpec:
        """Return a spec of which only the name and the title are known."""
        return MethodSpec(self.name, self.name, paper="", family="unknown", cost="unknown")

    def parameters(self) -> dict[str, Any]:
        """Return the hyper-parameters by name, as they were saved."""
        return dict(self.values)
