"""Other tasks than one class an image: several labels, regions, similarities, Hugging Face's nets.

    python examples/other_tasks.py cat.png

explains four small untrained nets, one of each kind, and draws what it takes: put your own in their
place.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import xcam
from xcam import Explanation
from xcam.models.toy import GapNet, TokenNet


def explain_labels(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    **settings: Any,  # noqa: ANN401
) -> Explanation:
    """Explain several labels an image at once: the sum of their logits.

    Args:
        model: From images to a logit a label, (B, K).
        images: (B, C, H, W).
        labels: (B, K) bool, those of each image.
        **settings: Of `xcam.explain`.
    """

    def score(output: Tensor, rows: Tensor) -> Tensor:
        return (output * labels[rows]).sum(1)

    return xcam.explain(model, images, score, **settings)


def explain_region(
    segmenter: nn.Module,
    images: Tensor,
    category: int,
    regions: Tensor,
    **settings: Any,  # noqa: ANN401
) -> Explanation:
    """Explain why regions belong to a category: the sum of its logits there.

    Args:
        segmenter: From images to logits a pixel, (B, K, H, W), alone or as torchvision's nets under
            the key `out`.
        images: (B, C, H, W).
        category: Its number.
        regions: (B, H, W) bool.
        **settings: Of `xcam.explain`.
    """

    def score(output: Any, rows: Tensor) -> Tensor:  # noqa: ANN401
        logits = output["out"] if isinstance(output, dict) else output
        return (logits[:, category] * regions[rows]).sum((1, 2))

    return xcam.explain(segmenter, images, score, **settings)


def explain_similarity(
    encoder: nn.Module,
    images: Tensor,
    embedding: Tensor,
    **settings: Any,  # noqa: ANN401
) -> Explanation:
    """Explain how similar images are to a text, or to another image: the cosine, as of CLIP.

    Args:
        encoder: From images to embeddings, (B, D): of a CLIP, its image tower.
        images: (B, C, H, W).
        embedding: (D,), of the text or the other image.
        **settings: Of `xcam.explain`.
    """

    def score(output: Tensor, rows: Tensor) -> Tensor:
        return F.cosine_similarity(output, embedding[None].to(output), dim=1)

    return xcam.explain(encoder, images, score, **settings)


class PixelValues(nn.Module):
    """A classifier of Hugging Face's `transformers`, called with the images and giving the logits.

    Most need no wrapper, since their first argument is `pixel_values`, and `logits` are found in
    what they return; this one is for those with other arguments in front, or to fix some.

    Args:
        classifier: Takes `pixel_values`, and returns an object with `logits`.
        **fixed: Its other arguments, such as `interpolate_pos_encoding=True`.
    """

    def __init__(self, classifier: nn.Module, **fixed: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.classifier, self.fixed = classifier, fixed

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, K)."""
        logits: Tensor = self.classifier(pixel_values=images, **self.fixed).logits
        return logits


class Segmenter(nn.Module):
    """A small net that gives logits a pixel, as torchvision's segmentation nets do."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = GapNet().features
        self.classifier = nn.Conv2d(12, 3, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return logits (B, 3, H, W) under `out`."""
        logits = self.classifier(self.backbone(images))
        return {"out": F.interpolate(logits, images.shape[2:], mode="bilinear")}


class Classifier(nn.Module):
    """A small net with the interface of Hugging Face's image classifiers."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = TokenNet()

    def forward(self, *, pixel_values: Tensor) -> SimpleNamespace:
        """Return an object with logits (B, K)."""
        return SimpleNamespace(logits=self.vit(pixel_values))


def main(arguments: Sequence[str] | None = None) -> None:
    """Explain one net of each kind, and draw the maps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path, help="a picture")
    parser.add_argument("--out", type=Path, default=Path(), help="the folder of the drawings")
    options = parser.parse_args(arguments)
    images = xcam.read_image(options.image, 64)[None]
    region = torch.zeros(1, 64, 64, dtype=torch.bool)
    region[:, 16:48, 16:48] = True
    text = torch.randn(5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[True, False, True, False, False]])
    explanations = {
        "labels": explain_labels(GapNet(), images, labels),
        "region": explain_region(Segmenter().eval(), images, 2, region, layer="backbone"),
        "similarity": explain_similarity(TokenNet(), images, text, method="attention_gradient"),
        "hugging_face": xcam.explain(PixelValues(Classifier()).eval(), images, 1, method="legrad"),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for task, explanation in explanations.items():
        path = options.out / f"{task}.png"
        explanation.plot(images, path)
        print(f"{task} -> {path}")


if __name__ == "__main__":
    main()
