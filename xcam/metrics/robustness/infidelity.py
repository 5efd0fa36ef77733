"""Infidelity: how badly a map predicts what perturbations of the image do to the score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from xcam.core import (
    Count,
    Explanation,
    Metric,
    MetricSpec,
    Output,
    Positive,
    Range,
    extract_logits,
)
from xcam.engine import forward, untouched
from xcam.engine.chunks import collect
from xcam.engine.clean import clean_logits
from xcam.engine.shared import shareable
from xcam.imaging import Fill
from xcam.metrics.explaining import read_contrast
from xcam.metrics.inputs import read_maps, read_target
from xcam.metrics.precision import to_finest
from xcam.metrics.reading import check_changed, make_score_reader
from xcam.metrics.robustness.perturbations import Perturbation, PerturbationKind

__all__ = ["Infidelity"]


@dataclass(frozen=True, eq=False, repr=False)
class Infidelity(Metric):
    """Infidelity: how badly the map predicts what perturbations of the image do to the score.

    E[(β·Iᵀφ − (f(x) − f(x − I)))²] over perturbations I of the elements of the image (Yeh et al.,
    2019, arXiv:1901.09392), with φ the map and, for each image, the β for which it is least, as the
    authors' numbers are: so maps in any unit can be compared, but one and its negative are alike.
    Their definition, captum and Quantus have β = 1, `scaled=False`; this asks for attributions in
    units of f, which no CAM gives. φ is `explanation.raw` where it has a value for each element of
    the image, else `explanation.maps`, each value standing for all channels of its pixel.
    The authors remove every square of 1 to 10 pixels of 28, or all of the image but Gaussian noise,
    which they clip to [0, 1]; captum leaves I to the caller. Quantus removes the blocks of a grid,
    each on top of the ones before. Lower is better.

    Attributes:
        perturbation: `"square"`, a random square is replaced by the fill; `"noisy_baseline"`, the
            whole image is, by the fill with noise; `"noise"`, noise is added.
        size: Side of a square, as a share of the image's shorter side.
        sigma: σ of the noise, in units of the images.
        fill: What stands where the image is removed.
        values: What the map holds: a `"gradient"`, which I is multiplied by, or a `"contribution"`,
            which the share of the element that is removed is multiplied by, as for Integrated
            Gradients, input × gradient or SHAP with the same fill.
        output: What of the output is f.
        scaled: Whether to take the best β, or 1.
        n_samples: Perturbations of an image.
        seed: Of the perturbations: squares of each image's own, noise that is the same for all.
    """

    perturbation: PerturbationKind = "square"
    size: Annotated[float, Range(above=0, most=1)] = 0.25
    sigma: Positive = 0.2
    fill: Fill = "zero"
    values: Literal["gradient", "contribution"] = "gradient"
    output: Output = "logit"
    scaled: bool = True
    n_samples: Count = 50
    seed: int = 0

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="infidelity",
        title="Infidelity",
        paper="Yeh et al., 2019, arXiv:1901.09392",
        formula="mean of (β·Iᵀφ − (f(x) − f(x − I)))²",
        higher_is_better=False,
        bounds=(0.0, math.inf),
        cost="n_samples + 1",
        known_failures={
            "oracle above random": "a square removed beside the object lowers the logit as well, "
            'which a flat map predicts; `output="prob"` does rank them right',
        },
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) mean squared errors; see `Metric.score`."""
        maps, raw = read_maps(explanation, images), explanation.raw.to(images.device)
        values = raw if raw.shape == images.shape else maps[:, None]
        perturbation = Perturbation(
            self.perturbation, self.size, self.sigma, self.fill, self.n_samples, self.seed
        )
        target, contrast = read_target(explanation, images), read_contrast(explanation, images)
        read = make_score_reader(target, self.output, contrast)
        rows = torch.arange(len(images), device=images.device)
        with untouched(model):
            changed = _read_changed(model, images, perturbation)
            clean = clean_logits(model, images, self.spec.name)
        after = read(to_finest(changed), rows.repeat(self.n_samples)).view(-1, len(images))
        drop = check_changed((read(to_finest(clean), rows) - after).T)
        effect = self._predict(images, values, perturbation)
        if self.scaled:
            energy = effect.square().sum(1, keepdim=True)
            best = (effect * drop).sum(1, keepdim=True) / energy.where(energy > 0, 1)
            effect = best * effect
        return (effect - drop).square().mean(1)

    @property
    def reads_channels(self) -> bool:
        """Return True: a map with a value an element is multiplied element by element."""
        return True

    def _predict(self, images: Tensor, values: Tensor, perturbation: Perturbation) -> Tensor:
        """Return what the map says of each perturbation, (B, n)."""
        change, count, found = perturbation.prepare(images), len(images), []
        for sample in range(self.n_samples):
            _, changed, shares = change(slice(sample * count, (sample + 1) * count))
            if self.values == "gradient":
                factors = images - changed
            elif values.shape[1] == 1:  # of a pixel, counted once
                factors = shares.mean(1, keepdim=True)
            else:
                factors = shares
            found.append((to_finest(factors) * to_finest(values)).flatten(1).sum(1))
        return torch.stack(found, 1)


@shareable
def _read_changed(model: nn.Module, images: Tensor, perturbation: Perturbation) -> Tensor:
    """Return the logits (n · B, K) of perturbed images, whatever the map.

    The caller holds the model `untouched`.
    """
    change = perturbation.prepare(images)

    def step(part: slice) -> Tensor:
        rows, changed, _ = change(part)
        with torch.no_grad():
            return extract_logits(forward.call(model, changed, may_overwrite=True), len(rows))

    return collect(perturbation.n_samples * len(images), step, images, "perturbed images")
