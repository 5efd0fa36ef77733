"""`without_head`: the classifier inside a net that carries a head."""

from __future__ import annotations

import copy

from torch import nn

from xcam._explain.run import attached_method
from xcam.engine import unwrap
from xcam.methods.trainable.heads import Tap
from xcam.models import Normalized

__all__ = ["without_head"]


def without_head(net: nn.Module) -> nn.Module:
    """The classifier inside a net that carries the head of a method, as it is by now.

    With LFI-CAM and ABN it is what was trained together with the head, with its attention switched
    off; with L-CAM, which changes no weight, it is the classifier that was given. It may be trained
    on, alone or with another head, saved, and explained like any other.

    Args:
        net: What `xcam.fit` returned for a trainable method, in any wrapper; left as it was.

    Returns:
        A copy without method and head, normalised as the net is, of which every parameter is
        trained again: also those that were frozen before the head was attached.

    Raises:
        ValueError: The net carries no head, or one that has its classifier not as `backbone`.
    """
    own = attached_method(net)
    if own is None:
        raise ValueError("the net carries no head of a method: it is the classifier itself")
    found = copy.deepcopy(unwrap(net))
    del found.method, found.fitted
    headed = found.model if isinstance(found, Normalized) else found
    backbone = getattr(headed, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise ValueError(
            f"the head of {own.spec.name} has no classifier as `backbone`; take the one from which "
            "the net was made"
        )
    for module in backbone.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key in [k for k, hook in hooks.items() if _taps(hook)]:
                del hooks[key]
    for parameter in backbone.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    backbone.train(headed.training)
    if not isinstance(found, Normalized):
        return backbone
    found.model = backbone
    return found


def _taps(hook: object) -> bool:
    return isinstance(getattr(hook, "__self__", None), Tap)
