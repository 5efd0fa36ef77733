"""Attention weighted by its gradient, layer upon layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Output, Target
from xcam.methods.attention.token_search import find_token_net
from xcam.methods.attention.tokens import (
    average_heads,
    differentiate_attention,
    follow,
    read_tokens,
)

__all__ = ["AttentionGradient"]


@dataclass(frozen=True)
class AttentionGradient(Method):
    """Attention times its gradient, followed through the layers, for any class.

    R ← R + mean_h (∇A ⊙ A)⁺ R over the layers, from R = I; A is a layer's attention, h its heads,
    ∇A = ∂y/∂A (Chefer et al., 2021, arXiv:2103.15679, for self-attention). The map is the row of
    the token that the scores read: the class token, or the mean of the rows of several, such as all
    patches. A net that pools its tokens by one more attention has that attention's mean_h (∇A ⊙ A)⁺
    times R.

    Attributes:
        output: What of the output is y.

    Raises:
        LayerError: The net does not attend from all tokens to all, as Swin's windows don't, or has
            no gradient there.
    """

    output: Output = "logit"

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="attention_gradient",
        title="Attention x Gradient",
        aliases=("attention_x_gradient",),
        paper="Chefer et al., 2021, arXiv:2103.15679",
        family="attention",
        cost="1 forward + backward",
        signed=False,
        net={"name": "xcam:token_net"},
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return the maps, (B, h, w) at the size of the patches; see `Method.maps`."""
        net = find_token_net(model, images)
        count = net.depth + net.pools
        pairs = differentiate_attention(model, images, target, self.output, count)
        steps = [average_heads((gradient * matrix).relu()) for matrix, gradient in pairs]
        relevance = torch.eye(steps[0].shape[-1], device=images.device, dtype=steps[0].dtype)
        relevance = relevance.expand(len(images), -1, -1)
        for step in steps[: net.depth]:
            relevance = relevance + step @ relevance
        pooling = steps[-1] if net.pools else None
        return read_tokens(net, follow(net, relevance, pooling))
