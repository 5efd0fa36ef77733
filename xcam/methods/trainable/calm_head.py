"""The head of CALM: two 1x1 convolutions, and the distribution over classes and positions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xcam.models.calm.initialization import initialize_xavier

__all__ = [
    "CueHead",
    "Prior",
    "compute_log_joint",
    "compute_log_marginal",
    "compute_posterior",
]

Prior = Literal["softplus", "relu"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"softplus": F.softplus, "relu": F.relu}


class CueHead(nn.Module):
    """p(y|x, z) and p(z|x) of features, at every position z.

    Computed in float32 at least, also under autocast: the smallest probabilities that matter are
    lost in half precision.

    Args:
        channels: D of the features.
        num_classes: C.
        prior: What makes the activations of the prior non-negative.
    """

    def __init__(self, channels: int, num_classes: int, prior: Prior) -> None:
        super().__init__()
        self.prior = prior
        self.conv_last = nn.Conv2d(channels, num_classes, 1)
        self.attention = nn.Conv2d(channels, 1, 1)
        initialize_xavier(self)

    def extra_repr(self) -> str:
        """Describe what is no module: the activation of the prior."""
        return f"prior={self.prior!r}"

    def classify(self, features: Tensor) -> Tensor:
        """Return the logits f (B, C, h, w) of each position of features (B, D, h, w)."""
        return _project(self.conv_last, features)

    def forward(self, features: Tensor, detached: bool = False) -> tuple[Tensor, Tensor]:
        """Return log p(y|x, z), (B, C, h, w), and p(z|x), (B, 1, h, w), of features (B, D, h, w).

        Where no position is active, the prior is uniform.

        Args:
            features: (B, D, h, w).
            detached: Whether to pass no gradient to the sum that normalizes the prior.
        """
        active = _ACTIVATIONS[self.prior](_project(self.attention, features))
        total = active.sum((2, 3), keepdim=True)
        total = total.detach() if detached else total
        # Dividing by less than the smallest normal number overflows, also in the gradient.
        is_active = total >= torch.finfo(total.dtype).tiny
        uniform = torch.full_like(active, 1 / (active.shape[2] * active.shape[3]))
        prior = (active / total.where(is_active, 1)).where(is_active, uniform)
        return self.classify(features).log_softmax(1), prior


def compute_log_joint(log_likelihood: Tensor, prior: Tensor, floor: float = 0.0) -> Tensor:
    """Return log p(y, z|x), (B, C, h, w); minus infinity where the prior is 0.

    Its gradient is finite everywhere, and 0 at such positions.

    Args:
        log_likelihood: log p(y|x, z), (B, C, h, w).
        prior: p(z|x), (B, 1, h, w).
        floor: What is added to smaller values of the prior.
    """
    raised = prior.where(prior >= floor, prior + floor)
    is_positive = raised >= torch.finfo(raised.dtype).tiny
    log_prior = raised.where(is_positive, 1).log().masked_fill(~is_positive, -torch.inf)
    return log_likelihood + log_prior


def compute_log_marginal(log_joint: Tensor) -> Tensor:
    """Return log p(y|x), (B, C), of log p(y, z|x), (B, C, h, w)."""
    return log_joint.flatten(2).logsumexp(2)


def compute_posterior(log_joint: Tensor, epsilon: float = 0.0) -> Tensor:
    """Return p(z|x, y), (B, C, h, w), of log p(y, z|x).

    Args:
        log_joint: (B, C, h, w).
        epsilon: What is added to p(y|x) before it divides.
    """
    log_marginal = compute_log_marginal(log_joint)[:, :, None, None]
    posterior = (log_joint - log_marginal).exp()
    marginal = log_marginal.exp()
    return posterior * (marginal / (marginal + epsilon)) if epsilon else posterior


def _project(convolution: nn.Conv2d, features: Tensor) -> Tensor:
    """Apply a 1x1 convolution in float32 at least."""
    exact = torch.promote_types(features.dtype, torch.float32)
    weight, bias = convolution.weight.to(exact), cast(Tensor, convolution.bias).to(exact)
    with _full_precision(features):
        return F.conv2d(features.to(exact), weight, bias)


def _full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    kind = tensor.device.type
    if not torch.amp.is_autocast_available(kind):  # the meta device has none
        return nullcontext()
    return torch.autocast(kind, enabled=False)
