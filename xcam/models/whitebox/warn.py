"""Wide residual nets that attend and rectify."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xcam.core import require_single_labels
from xcam.core.instantiate import check_count
from xcam.models.cifar.stages import blocks_per_stage, conv

__all__ = ["WARN", "AttentionMasks", "AttentionOutput"]

_WIDTHS = (16, 32, 64)
_LEAST = 5  # pixels a side, of which the masks of the last group are 2x2


class WARN(nn.Module):
    """Wide residual net whose prediction is rectified by attention to each of its three groups.

    WRN-d-k with the attention of Rodríguez et al., 2018 (arXiv:1807.07320), as the White Box
    project builds it. From the activated features of each group `attention` makes a hypothesis,
    scores of the classes at the positions that K masks choose; `gates` weight the three hypotheses
    h_1 to h_3, the last group's first, and the linear layer's own, h_4:

        log p = Σ_i g_i log softmax(h_i),  g = softmax(tanh(BN(W mean_ij F)))

    The weighted sum is what the net returns: (B, L) log-probabilities; where the hypotheses
    differ, the probabilities sum to less than 1. Layers behind the first block are read by a part
    of the hypotheses only: a map of `layer="norm"` explains h_1 and h_4. The net is trained
    with the negative log-likelihood plus a penalty of masks of one module that overlap, and so
    `xcam.fit` does, by `training_loss`. 6,043,362 parameters for
    one channel and 10 classes, 6,043,650 for three.

    Weights are drawn by torch's global generator: from N(0, 2 / n), each value of a layer's output
    being a sum of n products (He et al., 2015, arXiv:1502.01852).

    Args:
        num_classes: The number of classes.
        in_channels: The number of channels of the images.
        depth: 6n + 4, with n blocks a group.
        widen: The factor of the groups' 16, 32 and 64 channels.
        heads: K masks of each group.
        dropout: The probability of dropping a channel between a block's convolutions in training.
        penalty: Weight of the penalty.

    Raises:
        ValueError: A depth that is not 6n + 4, or another argument out of its range.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        depth: int = 28,
        widen: int = 4,
        heads: int = 4,
        dropout: float = 0.0,
        penalty: float = 0.001,
    ) -> None:
        super().__init__()
        counts = {"num_classes": num_classes, "in_channels": in_channels, "widen": widen}
        for name, count in {**counts, "depth": depth, "heads": heads}.items():
            check_count(name, count)
        if not 0 <= penalty < math.inf:  # which NaN is not
            raise ValueError(f"penalty must be a finite number of at least 0, got {penalty!r}")
        blocks = blocks_per_stage(depth, layers=6, outside=4)
        widths = [widen * width for width in _WIDTHS]
        self.penalty = penalty
        self.stem = nn.Sequential(
            conv(in_channels, _WIDTHS[0], 3), nn.BatchNorm2d(_WIDTHS[0]), nn.ReLU()
        )
        self.groups = nn.ModuleList(
            _Group(before, after, stride, blocks, dropout)
            for before, after, stride in zip((_WIDTHS[0], *widths), widths, (1, 2, 2), strict=False)
        )
        self.norm = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU())
        self.attention = nn.ModuleList(
            AttentionOutput(width, heads, num_classes) for width in widths
        )
        self.gates = nn.Sequential(
            nn.Linear(widths[-1], len(widths) + 1, bias=False), nn.BatchNorm1d(len(widths) + 1)
        )
        self.fc = nn.Linear(widths[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Return log-probabilities (B, L) of normalized images (B, in_channels, H, W)."""
        return self._attend(images)[0]

    def training_loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the negative log-likelihood plus the penalty, and the log-probabilities.

        `xcam.fit` trains by it.

        Args:
            images: (B, in_channels, H, W), normalized; sides of at least 5 pixels.
            labels: (B,) int64, or (B, L) shares of the classes.

        Raises:
            ValueError: Images that are too small, or of several labels.
        """
        require_single_labels(labels, "warn", "its log-probabilities are of one class an image")
        if min(images.shape[2:]) < _LEAST:
            raise ValueError(
                f"images must be at least {_LEAST} pixels a side to train on, got "
                f"{tuple(images.shape[2:])}; resize them"
            )
        logs, masks = self._attend(images)
        likelihood = (
            F.nll_loss(logs, labels) if labels.ndim == 1 else -(labels * logs).sum(1).mean()
        )
        overlap = torch.stack([_measure_overlap(each) for each in masks]).mean()
        return likelihood + self.penalty * overlap, logs

    def _attend(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the log-probabilities, and the masks of each group."""
        features, activated = self.stem(images), []
        for group in self.groups:
            features, entered = group(features)
            activated.append(entered)
        last = self.norm(features)
        # What is attended to is activated: a group's features as the next one takes them.
        taken = [*activated[1:], last]
        found = [attend(each) for attend, each in zip(self.attention, taken, strict=True)]
        pooled = last.mean((2, 3))
        hypotheses = [scores for scores, _ in reversed(found)] + [self.fc(pooled)]
        gates = self.gates(pooled).tanh().softmax(1)  # (B, 4)
        logs = torch.stack(hypotheses, dim=1).log_softmax(2)  # (B, 4, L)
        return (gates[:, :, None] * logs).sum(1), [masks for _, masks in found]


class AttentionOutput(nn.Module):
    """A hypothesis of the classes, from the positions that masks choose.

        h = Σ_k w_k Σ_ij M_kij O_kij,  w = softmax_k(tanh(Σ_ij M_kij S_kij))

    with the masks M and the 3x3 convolutions O and S of the features.

    Args:
        channels: Of the features.
        heads: K masks.
        num_classes: L scores of a hypothesis.
    """

    def __init__(self, channels: int, heads: int, num_classes: int) -> None:
        super().__init__()
        self.masks = AttentionMasks(channels, heads)
        self.output = conv(channels, heads * num_classes, 3)
        self.score = conv(channels, heads, 3)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hypothesis (B, L) and the masks (B, K, h, w) of features (B, C, h, w)."""
        masks = self.masks(features)
        outputs = self.output(features).unflatten(1, (masks.shape[1], -1))  # (B, K, L, h, w)
        hypotheses = (masks[:, :, None] * outputs).sum((3, 4))  # (B, K, L)
        weights = (masks * self.score(features)).sum((2, 3)).tanh().softmax(1)  # (B, K)
        return (weights[:, :, None] * hypotheses).sum(1), masks


class AttentionMasks(nn.Module):
    """The masks: a 3x3 convolution, and a softmax over the positions.

    Args:
        channels: Of the features.
        heads: K masks.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.conv = conv(channels, heads, 3)

    def forward(self, features: Tensor) -> Tensor:
        """Return masks (B, K, h, w), each of which sums to 1, of features (B, C, h, w)."""
        scores = self.conv(features)
        masks: Tensor = scores.flatten(2).softmax(2).view_as(scores)
        return masks


class _Group(nn.Module):
    """Blocks of one size; the first may change channels and stride."""

    def __init__(self, before: int, after: int, stride: int, blocks: int, dropout: float) -> None:
        super().__init__()
        self.first = _Block(before, after, stride, dropout)
        self.rest = nn.Sequential(*(_Block(after, after, 1, dropout) for _ in range(blocks - 1)))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, after, h / stride, w / stride), and the activated input."""
        activated = self.first.activation(features)
        return self.rest(self.first(features, activated)), activated


class _Block(nn.Module):
    """A pre-activation block: branch(ReLU(BN(x))) + x, with a projected x where channels change."""

    def __init__(self, before: int, after: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU())
        self.branch = nn.Sequential(
            conv(before, after, 3, stride),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Dropout2d(dropout),
            conv(after, after, 3),
        )
        self.projection = conv(before, after, 1, stride) if before != after else None

    def forward(self, features: Tensor, activated: Tensor | None = None) -> Tensor:
        """Return features (B, after, h / stride, w / stride) of features (B, before, h, w).

        Args:
            features: x.
            activated: ReLU(BN(x)), where it is known.
        """
        activated = self.activation(features) if activated is None else activated
        shortcut = features if self.projection is None else self.projection(features)
        mixed: Tensor = self.branch(activated) + shortcut
        return mixed


def _measure_overlap(masks: Tensor) -> Tensor:
    """Return the mean squared scalar product of pairs of masks (B, K, h, w) at half their size."""
    flat = F.avg_pool2d(masks, 2).flatten(2)
    products = flat @ flat.transpose(1, 2)  # (B, K, K)
    return (products - products * torch.eye(products.shape[1]).to(products)).square().mean()
