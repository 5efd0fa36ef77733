"""What a criterion's mean divides by, so that the parts of a step add up to the whole of it."""

from __future__ import annotations

import copy
import warnings
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from xcam._fit.settings import Criterion, Runtime
from xcam.errors import warn

__all__ = ["Divisor", "find_divisors"]

Kind: TypeAlias = Literal["plain", "weighted", "sum", "other"]

_SAME = 1e-3  # how far measurements of one number may differ


class Divisor:
    """What a criterion divides by: the number of the images, or the sum of their weights.

    With weights, or classes that are ignored, a mean over parts of a step is not the step's. Any
    criterion is asked, by its gradient: in a batch the gradient of one more image, the reference,
    is a ∇l / (W + a), with a the weight of the reference and W that of the others; alone it is ∇l.

    Attributes:
        kind: `"plain"`, the mean over the images; `"weighted"`, where classes have weights or are
            ignored; `"sum"`, which divides by nothing; or `"other"`, where the images of a batch
            change each other's loss, or what divides it depends on more than their labels.
    """

    def __init__(
        self,
        criterion: Criterion,
        num_classes: int,
        is_mixed: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        """Determine how a criterion normalizes its loss.

        Args:
            criterion: Of logits (B, K) and labels; a copy of a module is measured.
            num_classes: K.
            is_mixed: Whether labels are shares of the classes, (B, K), instead of (B,) int64.
            device: Of what a function holds, such as weights.
        """
        self._criterion, self._num_classes, self._is_mixed = criterion, num_classes, is_mixed
        self._label, self._alone = 0, torch.zeros(())
        self.kind: Kind = "other"
        # In double precision where the criterion takes it.
        for place, dtype in (("cpu", torch.float64), (device, torch.float64), (device, None)):
            self._device, self._dtype = torch.device(place), dtype or torch.float32
            try:
                if isinstance(criterion, nn.Module):
                    self._criterion = copy.deepcopy(criterion).to(self._device, self._dtype)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self._find_reference()
                    self.kind = self._find_kind()
                return
            except (IndexError, RuntimeError, TypeError, ValueError):
                continue  # a criterion that takes nothing is met again by the training

    def measure(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return what the criterion divides a batch by, a scalar, in units of the reference.

        Zero where no image counts; one of a sum, which is divided by nothing.
        """
        if self.kind == "sum":
            return torch.ones((), device=logits.device)
        if self.kind != "weighted":
            return torch.tensor(float(len(labels)), device=logits.device)
        return self._measure(logits, labels).to(logits.device, torch.float32)

    def _measure(self, logits: Tensor, labels: Tensor) -> Tensor:
        weight = 1 / self._measure_share(logits, labels) - 1
        return weight.where(weight > self._rounding, 0)

    @property
    def _rounding(self) -> float:
        return 1e-9 if self._dtype == torch.float64 else 1e-5

    def _find_reference(self) -> None:
        """Choose a class that counts."""
        for label in range(self._num_classes):
            self._label = label
            found = self._differentiate(*self._make_rows(0))
            if bool(found.isfinite().all()) and bool(found.any()):
                self._alone = found
                return
        raise ValueError("no class counts")

    def _find_kind(self) -> Kind:
        row, label = self._make_reference()
        twice = float(self._measure_share(row, label))
        if abs(twice - 1) < _SAME:
            return "sum"
        rows, labels = self._make_rows(self._num_classes + 1)
        shares = [self._measure_share(rows * scale, labels) for scale in (0.3, 1.0, 1.7)]
        gradient = self._differentiate(rows, labels)
        apart = (gradient - shares[1] * self._alone).abs().amax()
        is_parallel = bool(apart <= _SAME * gradient.abs().amax())
        is_constant = all(bool((share / shares[1] - 1).abs() < _SAME) for share in shares)
        if not (abs(twice - 0.5) < _SAME and is_parallel and is_constant):
            return "other"
        each = [self._measure(rows[k : k + 1], labels[k : k + 1]) for k in range(len(rows))]
        return "plain" if all(abs(float(one) - 1) < self._rounding for one in each) else "weighted"

    def _make_reference(self) -> tuple[Tensor, Tensor]:
        """Return the logits (1, K) and the label of the reference."""
        row = torch.linspace(-1, 1, self._num_classes, dtype=self._dtype)[None]
        return row.to(self._device), self._make_labels(torch.tensor([self._label]))

    def _make_rows(self, count: int) -> tuple[Tensor, Tensor]:
        """Return logits (count, K) and labels of all classes."""
        numbers = torch.arange(count)
        rows = (1 + numbers[:, None] * torch.arange(self._num_classes)).to(self._dtype).sin()
        return rows.to(self._device), self._make_labels(numbers % self._num_classes)

    def _make_labels(self, labels: Tensor) -> Tensor:
        if self._is_mixed:
            labels = nn.functional.one_hot(labels, self._num_classes).to(self._dtype)
        return labels.to(self._device)

    def _measure_share(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return a / (W + a) for a batch of weight W."""
        found = self._differentiate(logits, labels)
        return (found * self._alone).sum() / self._alone.square().sum()

    def _differentiate(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient (1, K) in the reference's logits, in a batch behind these."""
        row, label = self._make_reference()
        others, labels = logits.detach().to(self._device, self._dtype), labels.to(self._device)
        if labels.is_floating_point():
            labels = labels.to(self._dtype)
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(self._device.type, enabled=False),
            torch.random.fork_rng(devices=[]),
        ):
            row = row.clone().requires_grad_()
            loss = self._criterion(torch.cat([others, row]), torch.cat([labels, label]))
            return torch.autograd.grad(loss, row)[0]


def find_divisors(
    criterion: Criterion | None,
    num_classes: int,
    is_mixed: bool,
    has_several: bool,
    parts: int,
    is_measured: bool,
    runtime: Runtime,
) -> tuple[Divisor | None, Divisor | None]:
    """Return what a criterion divides the parts of a step by, and batches that are measured.

    None where that is their number of images, or it makes no difference.

    Args:
        criterion: Of logits and labels; None for the cross-entropy.
        num_classes: Of the logits.
        is_mixed: Whether labels are mixed in training.
        has_several: Whether an image has several labels, (B, K).
        parts: Of a step, over all processes.
        is_measured: Whether there are validation images.
        runtime: Where the net runs.
    """
    training = measuring = None
    if criterion is not None and parts > 1:
        training = Divisor(criterion, num_classes, is_mixed or has_several, runtime.device)
        if training.kind == "other" and runtime.processes.is_main:
            warn(
                f"each step is computed in {parts} parts, whose losses are averaged by numbers of "
                "images: not the whole step's loss of this criterion, which is no mean or sum "
                "over images; for that leave out accumulate, or give a criterion that is one"
            )
    if criterion is not None and is_measured:
        measuring = Divisor(criterion, num_classes, has_several, runtime.device)
    return (
        training if training and training.kind in ("weighted", "sum") else None,
        measuring if measuring and measuring.kind == "weighted" else None,
    )
