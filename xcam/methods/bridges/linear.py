"""The linear models that captum's LIME and Kernel SHAP fit, on the images' device.

Captum fits them by scikit-learn, on the host.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["LinearModel"]

_ROUNDS = 2000


class LinearModel:
    """A linear model with an intercept, in the interface of captum's `Model`.

    Minimizes Σ w (y − X b − b₀)² / (2 Σ w) + λ Σ |b|, as scikit-learn's `Lasso` does; since a score
    has no unit, λ is given in terms of the data.

    Args:
        alpha: The weight of the penalty, as a share of the least that makes all coefficients zero;
            0 for weighted least squares.
    """

    def __init__(self, alpha: float = 0.0) -> None:
        self.alpha = alpha
        self._coefficients = torch.zeros(0)

    def fit(self, train_data: Any, **_: Any) -> None:  # noqa: ANN401 - a DataLoader of captum's
        """Fit to the inputs (N, K), outputs (N,) and weights (N,) of a data loader's dataset."""
        inputs, outputs, weights = (
            each.to(train_data.dataset.tensors[0].device, torch.float64)
            for each in train_data.dataset.tensors
        )
        share = weights.flatten() / weights.sum()
        inputs = inputs - share @ inputs
        outputs = outputs.flatten() - share @ outputs.flatten()
        root = share.sqrt()
        if self.alpha == 0:
            found = torch.linalg.pinv(root[:, None] * inputs) @ (root * outputs)
        else:
            products = inputs.mT @ (share * outputs)
            penalty = self.alpha * products.abs().max()
            found = _fit_lasso(inputs.mT @ (share[:, None] * inputs), products, penalty)
        self._coefficients = found.float()

    def representation(self) -> Tensor:
        """Return the coefficients (1, K)."""
        return self._coefficients[None]

    def __call__(self, *_: object) -> Tensor:
        """Refuse to predict: captum asks for the coefficients alone."""
        raise NotImplementedError("only the coefficients are of use")


def _fit_lasso(gram: Tensor, products: Tensor, penalty: Tensor) -> Tensor:
    """Minimize bᵀ G b / 2 − pᵀ b + λ Σ |b| by accelerated proximal gradient steps."""
    step = 1 / torch.linalg.matrix_norm(gram, 2).clamp(min=torch.finfo(gram.dtype).tiny)
    found = ahead = torch.zeros_like(products)
    for count in range(_ROUNDS):
        moved = ahead - step * (gram @ ahead - products)
        following = moved.sign() * (moved.abs() - step * penalty).clamp(min=0)
        ahead = following + (count / (count + 3)) * (following - found)
        if count % 25 == 0 and torch.equal(found, following):
            break
        found = following
    return found
