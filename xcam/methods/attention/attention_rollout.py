"""Attention rollout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Target
from xcam.methods.attention.token_search import find_token_net
from xcam.methods.attention.tokens import attend, follow, read_tokens

__all__ = ["AttentionRollout"]


@dataclass(frozen=True)
class AttentionRollout(Method):
    """Attention rollout: how much of each patch attention carries to what the classifier reads.

    R ← (½ mean_h A + ½ I) R over the layers, from R = I, with the rows of each factor normalized to
    a sum of 1; A is a layer's attention, h its heads (Abnar and Zuidema, 2020, arXiv:2005.00928).
    The map is the row of the token that the scores read: the class token, or the mean of the rows
    of several, such as all patches. A net that pools its tokens by one more attention has that
    attention's row times R. The same map for every class.

    Raises:
        LayerError: The net does not attend from all tokens to all, as Swin's windows don't.
    """

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="attention_rollout",
        title="Attention rollout",
        paper="Abnar and Zuidema, 2020, arXiv:2005.00928",
        family="attention",
        cost="1 forward",
        class_specific=False,
        signed=False,
        normalized=True,
        net={"name": "xcam:token_net"},
        aliases=("rollout",),
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return the maps, (B, h, w) at the size of the patches; see `Method.maps`."""
        net = find_token_net(model, images)
        matrices = attend(model, images, target)
        identity = torch.eye(matrices[0].shape[-1], device=images.device, dtype=matrices[0].dtype)
        rollout = identity.expand(len(images), -1, -1)
        for matrix in matrices[: net.depth]:
            step = (matrix + identity) / 2
            rollout = step / step.sum(2, keepdim=True) @ rollout
        pooling = matrices[-1] if net.pools else None
        return read_tokens(net, follow(net, rollout, pooling))
