"""The formulas of grad-cam's and torch-cam's further CAMs, on the images' device.

grad-cam computes them in NumPy, on the host, cuts them at zero and min-maxes them; here they are
raw and signed, and of any layout of a layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from xcam.core import Output, Target, extract_logits
from xcam.engine import capture
from xcam.engine.clean import bind_clean_pass
from xcam.methods.bridges.refinecam import require_base
from xcam.methods.cam.features import (
    capture_activations,
    capture_activations_and_gradients,
    read,
    require_layer,
    weight_channels,
)
from xcam.methods.cam.projection import project_on_principal_axis

__all__ = [
    "FromActivations",
    "FromGradients",
    "explain_by_curvature",
    "explain_differences",
    "explain_highest",
    "explain_products",
    "explain_segments",
    "project_by_kernel",
    "weight_at_random",
]


class FromActivations:
    """A map that a formula makes of a layer's activations (B, C, h, w) alone."""

    def __init__(self, formula: Callable[[Any, Tensor], Tensor]) -> None:
        self._formula = formula

    def __call__(self, method: Any, model: nn.Module, images: Tensor, target: Target) -> Tensor:  # noqa: ANN401
        """Return raw maps; see `Method.maps`."""
        return self._formula(method, capture_activations(model, images, target, method.layer))


class FromGradients:
    """A map that a formula makes of a layer's activations and gradients (B, C, h, w)."""

    def __init__(self, formula: Callable[[Any, Tensor, Tensor], Tensor]) -> None:
        self._formula = formula

    def __call__(self, method: Any, model: nn.Module, images: Tensor, target: Target) -> Tensor:  # noqa: ANN401
        """Return raw maps; see `Method.maps`."""
        activation, gradient = capture_activations_and_gradients(
            model, images, target, method.layer, method.output
        )
        return self._formula(method, activation, gradient)


def explain_products(_: object, activation: Tensor, gradient: Tensor) -> Tensor:
    """Return Σ_k max(∂y/∂A_k ⊙ A_k, 0)."""
    return (gradient * activation).relu().sum(1)


def explain_segments(_: object, activation: Tensor, gradient: Tensor) -> Tensor:
    """Project |∂y/∂A| ⊙ A on its first principal axis, its largest magnitude being positive."""
    products = gradient.abs() * activation
    return project_on_principal_axis(products, torch.zeros_like(products[:, 0]))


def explain_highest(method: Any, activation: Tensor) -> Tensor:  # noqa: ANN401
    """Weight channels by how many of their values lie k deviations above their mean."""
    deviation = activation.std((2, 3), unbiased=False, keepdim=True)
    highest = activation > activation.mean((2, 3), keepdim=True) + method.k * deviation
    return weight_channels(activation, highest.to(activation.dtype).mean((2, 3))).sum(1)


def weight_at_random(method: Any, activation: Tensor) -> Tensor:  # noqa: ANN401
    """Weight channels by numbers in [−1, 1] that are drawn, the same for all images."""
    generator = torch.Generator().manual_seed(method.seed)
    weights = 2 * torch.rand(activation.shape[1], generator=generator) - 1
    return weight_channels(activation, weights.to(activation).expand(len(activation), -1)).sum(1)


def project_by_kernel(method: Any, activation: Tensor) -> Tensor:  # noqa: ANN401
    """Return the first component of a kernel PCA of the positions, its sign as Eigen-CAM's."""
    rows = activation.double().flatten(2).mT  # (B, h·w, C)
    rows = rows - rows.mean(1, keepdim=True)
    gram = _KERNELS[method.kernel](rows, method.gamma or 1 / rows.shape[2])
    mean = gram.mean(1, keepdim=True)
    gram = gram - mean - mean.mT + mean.mean(2, keepdim=True)
    values, vectors = torch.linalg.eigh(gram)
    found = vectors[:, :, -1] * values[:, -1:].clamp(min=0).sqrt()
    guide = activation.relu().mean(1).double().flatten(1)
    agreement = (found * (guide - guide.mean(1, keepdim=True))).sum(1, keepdim=True)
    extreme = found.gather(1, found.abs().argmax(1, keepdim=True))
    reach = found.norm(dim=1, keepdim=True) * guide.norm(dim=1, keepdim=True)
    decisive = torch.where(agreement.abs() > 1e-4 * reach, agreement, extreme)
    sign = torch.where(decisive < 0, -1.0, 1.0)
    maps: Tensor = (found * sign).view(len(found), *activation.shape[2:])
    return maps.to(activation.dtype)


def _square_distances(rows: Tensor) -> Tensor:
    return torch.cdist(rows, rows).square()


def _cosines(rows: Tensor) -> Tensor:
    unit = nn.functional.normalize(rows, dim=2)
    return unit @ unit.mT


# As in scikit-learn: a constant of 1, and the third power.
_KERNELS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "sigmoid": lambda rows, gamma: (gamma * rows @ rows.mT + 1).tanh(),
    "rbf": lambda rows, gamma: (-gamma * _square_distances(rows)).exp(),
    "poly": lambda rows, gamma: (gamma * rows @ rows.mT + 1) ** 3,
    "cosine": lambda rows, gamma: _cosines(rows),
    "linear": lambda rows, gamma: rows @ rows.mT,
}


def explain_by_curvature(method: Any, model: nn.Module, images: Tensor, target: Target) -> Tensor:  # noqa: ANN401
    """Weight channels by mean(∂y/∂A − ½ H A), H being the second derivatives of y; ShapleyCAM."""
    layer = require_layer(method.layer)
    # The other kernels of attention have no second derivatives.
    with capture(model, layer) as tap, sdpa_kernel(SDPBackend.MATH):
        prediction = tap(images)
        target.bind(prediction)
        outputs: list[Output] = ["logit", "logprob"] if method.output == "rest" else [method.output]
        if target.function is not None:
            outputs = outputs[:1]  # a callable is the score by itself
        scores = sum(target.scores(prediction, output=output) for output in outputs)
        if not isinstance(scores, Tensor):
            raise TypeError("a method explains one output at least")
        gradient = tap.gradient(scores, create_graph=True)
        product = torch.zeros_like(gradient)
        if gradient.requires_grad:
            along = (gradient * tap.activation.detach()).sum()
            (found,) = torch.autograd.grad(along, tap.activation, allow_unused=True)
            product = product if found is None else found
        weights = gradient.detach() - product / 2
        activation = tap.activation.detach()
    weights, activation = (read(each, images, model, layer) for each in (weights, activation))
    return weight_channels(activation, weights.mean((2, 3))).sum(1)


def explain_differences(method: Any, model: nn.Module, images: Tensor, target: Target) -> Tensor:  # noqa: ANN401
    """Explain by a base how the class differs from those with the nearest logits; Finer-CAM."""
    if target.function is not None:
        raise TypeError(
            "finercam compares a class with others, and the target is a callable; give a class, "
            "or explain the callable by the base itself, such as 'gradcam'"
        )
    base = require_base(method)
    if base.spec.name == "finercam":
        raise ValueError(
            "finercam cannot be the base of finercam: give a CAM that explains any score, such as "
            "base='gradcam'"
        )
    if base.parameters().get("output", "logit") != "logit":
        raise ValueError(
            f"finercam explains differences of logits, and its base has output="
            f"{base.parameters()['output']!r}; leave out the base's output"
        )
    from_clean = _Differences(method, model, images, target)
    return base.maps(model, images, Target.of(from_clean, images))


class _Differences:
    """The score Σ_j p_j (y − alpha y_j) / Σ_j p_j over the classes j that are compared with."""

    def __init__(self, method: Any, model: nn.Module, images: Tensor, target: Target) -> None:  # noqa: ANN401
        bind_clean_pass(model, images, target)
        logits, classes = target.logits, target.classes
        if logits is None or classes is None:
            raise TypeError("finercam needs logits")
        if logits.shape[1] < 2:
            raise ValueError(
                "finercam compares a class with others, and the model has one output; explain it "
                "by the base itself, such as 'gradcam'"
            )
        own = logits.gather(1, classes[:, None])
        distance = (logits - own).abs().scatter(1, classes[:, None], torch.inf)
        count = min(method.n_classes, logits.shape[1] - 1)
        self._alpha, self._classes = method.alpha, classes
        self._others = distance.topk(count, largest=False).indices  # (B, n)

    def __call__(self, prediction: object, rows: Tensor) -> Tensor:
        """Return the scores (R,)."""
        logits = extract_logits(prediction, len(rows))
        own = logits.gather(1, self._classes[rows, None])
        others = self._others[rows]
        weights = logits.softmax(1).gather(1, others)
        differences = own - self._alpha * logits.gather(1, others)
        compared: Tensor = (weights * differences).sum(1) / (weights.sum(1) + 1e-9)
        return compared
