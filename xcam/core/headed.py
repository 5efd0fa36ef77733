"""`Headed`: a classifier with the head of a trainable method, and which method a model carries."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from xcam.core.method import Method, TrainableMethod
from xcam.errors import NotFittedError

__all__ = ["Headed", "attached_method", "check_fitted", "check_headless", "find_headed"]


class Headed(nn.Module):
    """A classifier that carries the head of a trainable method; made by the method's `attach`.

    It maps images to logits, as `method.logits` says. Where the classifier normalizes its images,
    this is inside the `xcam.models.Normalized`, and sees normalized images; that one hands on
    `method`, `fitted`, `head` and `classifier`.

    Args:
        classifier: From images to scores, without its normalization. Where `method.replaces` it
            is what the method goes on with, such as the features alone.
        head: What the method adds.
        method: With every field that shapes the head filled in.
        image_shape: (C, H, W) of the images that the head was attached for, if they are known.
        frozen: The names of parts, such as `"classifier"`, that never learn: they have
            `requires_grad=False`, and stay in eval mode whatever mode the net is in.

    Attributes:
        fitted: Whether the head has been trained; `xcam.fit` and `xcam.load` set it, and
            `xcam.explain` refuses a head that is not.
    """

    def __init__(
        self,
        classifier: nn.Module,
        head: nn.Module,
        method: TrainableMethod,
        image_shape: tuple[int, int, int] | None = None,
        frozen: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.classifier, self.head, self.method = classifier, head, method
        self.image_shape, self.frozen = image_shape, tuple(frozen)
        self.fitted = False
        self.training = classifier.training
        for name in self.frozen:
            self.get_submodule(name).requires_grad_(False)
        self._freeze_modes()

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, K) of normalized images (B, C, H, W)."""
        return self.method.logits(self, images)

    def train(self, mode: bool = True) -> Headed:
        """Set the mode of all parts but the frozen ones."""
        super().train(mode)
        self._freeze_modes()
        return self

    def _freeze_modes(self) -> None:
        # Without gradients alone, batch norm would still update its statistics, and dropout drop.
        for name in self.frozen:
            self.get_submodule(name).eval()

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Return (H, W) of the images that the head was attached for, if it is known."""
        return None if self.image_shape is None else self.image_shape[1:]

    def extra_repr(self) -> str:
        """Describe what is no module: the method, and whether its head is trained."""
        return f"method={self.method!r}, fitted={self.fitted}"


def find_headed(net: nn.Module) -> Headed:
    """Return the `Headed` that a net is, or has inside.

    Raises:
        NotFittedError: There is none.
    """
    headed = _search_headed(net)
    if headed is None:
        raise NotFittedError(
            f"the {type(net).__name__} carries no head; give a net that xcam.fit, or the method's "
            "attach, has made"
        )
    return headed


def attached_method(model: nn.Module) -> TrainableMethod | None:
    """Return the method whose head a model carries, however wrapped; None if it carries none."""
    headed = _search_headed(model)
    return None if headed is None else headed.method


def check_fitted(method: Method, model: nn.Module) -> None:
    """Refuse a trainable method, or base, on a model that does not carry its trained head.

    Raises:
        NotFittedError: The model lacks the head, or has it untrained.
    """
    base = method.parameters().get("base")
    if isinstance(base, Method):
        check_fitted(base, model)
    if not isinstance(method, TrainableMethod):
        return
    name, headed = method.spec.name, _search_headed(model)
    if headed is None or headed.method.spec.name != name:
        head = "no head" if headed is None else f"the head of {headed.method.spec.name}"
        raise NotFittedError(
            f"{name} needs a model with its head, and this one has {head}; explain the net that "
            f"xcam.fit(model, data, method={name!r}) returns"
        )
    if not headed.fitted:
        raise NotFittedError(
            f"the head of {name} on this model is not trained; xcam.fit(model, data, "
            f"method={name!r}) trains one"
        )


def _search_headed(model: nn.Module) -> Headed | None:
    # Anywhere inside: also a module of the user's may be wrapped around a net with a head.
    return next((module for module in model.modules() if isinstance(module, Headed)), None)


def check_headless(model: nn.Module) -> None:
    """Refuse a model that carries a head already.

    Raises:
        ValueError: It does.
    """
    attached = attached_method(model)
    if attached is not None:
        remedy = "give the classifier that it was made from"
        if not attached.replaces:
            remedy += " or, as trained with the head, net.classifier"
        raise ValueError(f"the model carries the head of {attached!r} already; {remedy}")
