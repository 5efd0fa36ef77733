"""What is minimised, as a module: several processes average the gradients of whatever it uses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn
from torch.nn import functional as F

from xcam.core import TrainableMethod, extract_logits
from xcam.errors import ModelOutputError

__all__ = ["Criterion", "Objective"]

Criterion: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class Objective(nn.Module):
    """The loss of a batch, and the logits that were met on the way.

    Args:
        net: The classifier that is trained.
        method: Whose loss it is, where the net carries the head of one.
        criterion: Of logits (B, K) and labels, to the mean over the images; None is the
            cross-entropy.
        label_smoothing: Of the cross-entropy.
    """

    def __init__(
        self,
        net: nn.Module,
        method: TrainableMethod | None,
        criterion: Criterion | None,
        label_smoothing: float,
    ) -> None:
        super().__init__()
        self.net, self.method, self.label_smoothing = net, method, label_smoothing
        self.criterion = copy.deepcopy(criterion)  # a module of the caller's may change device

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the loss, a scalar, and the logits (B, K); None if the method's loss has none.

        Args:
            images: (B, C, H, W).
            labels: (B,) int64, or (B, K) shares of the classes in mixed images.

        Raises:
            ModelOutputError: The net's output is not one (B, K) tensor.
            TypeError: The method's loss gives no pair.
            ValueError: The loss is no scalar.
        """
        loss, logits = (
            self._call_net(images, labels)
            if self.method is None
            else _call_method(self.method, self.net, images, labels)
        )
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"the loss must be a scalar, the mean over the images, got {got}")
        return loss, None if logits is None else logits.detach()

    def measure(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss, and the logits (B, K), of a net with the same structure in eval mode.

        Where the method's loss meets no logits of the images, they take one more pass.
        """
        if self.method is None:
            logits = extract_logits(net(images), len(images))
            return self._compute_loss(logits, labels), logits
        loss, met = _call_method(self.method, net, images, labels)
        return loss, extract_logits(net(images), len(images)) if met is None else met

    def _compute_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.criterion is not None:
            return self.criterion(logits, labels)
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def _call_net(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        output = self.net(images)
        if any(name.startswith("aux_logits") for name in getattr(output, "_fields", ())):
            raise ModelOutputError(
                "in training the model gives the logits of auxiliary classifiers, too; make it "
                "without them: xcam.models.load(…, aux_logits=False)"
            )
        logits = extract_logits(output, len(images))
        return self._compute_loss(logits, labels), logits


def _call_method(
    method: TrainableMethod, net: nn.Module, images: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Return a method's loss, and the logits that it met, checked."""
    found = method.loss(net, images, labels)
    if not isinstance(found, tuple) or len(found) != 2:
        raise TypeError(
            f"loss of {method.spec.name} must return the loss and the logits of net(images), or "
            f"None in place of the logits, got {type(found).__name__}"
        )
    loss, logits = found
    return loss, None if logits is None else extract_logits(logits, len(images))
