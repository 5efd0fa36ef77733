"""What a net's own attention modules give, for the attention family."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from xcam.core import Target
from xcam.engine import capture, forward, untouched, unwrap
from xcam.engine.shared import shareable
from xcam.engine.trace import record_pass
from xcam.engine.wrappers import check_layers
from xcam.errors import LayerError

__all__ = ["read_gate"]


def read_gate(
    model: nn.Module,
    images: Tensor,
    target: Target,
    kind: type[nn.Module],
    stage: int,
    example: str,
) -> Tensor:
    """Return the mean channel (B, h, w) of what an attention module gives, from one pass.

    Args:
        model: The classifier, in any wrapper.
        images: (B, C, H, W).
        target: Is bound with the same pass.
        kind: The class of the modules, whose output is (B, K, h, w).
        stage: Which of them, in the order of the model's modules; negative from the end.
        example: Code that makes a net that has some, for the message.

    Raises:
        LayerError: The model has none, or does not call this one.
        ValueError: There is no such stage.
    """
    net = unwrap(model)
    check_layers(net)
    names = [name for name, module in net.named_modules() if isinstance(module, kind)]
    if not names:
        raise LayerError(
            f"the model has no {kind.__name__} of {kind.__module__}, whose output is the map; "
            f"explain a net that has one, such as {example}, or use 'rise'"
        )
    if not -len(names) <= stage < len(names):
        raise ValueError(
            f"stage must be from {-len(names)} to {len(names) - 1}, since the model has "
            f"{len(names)} {kind.__name__} modules, got {stage}"
        )
    try:
        gate, logits = _capture(model, images, target, names[stage])
    except LayerError as error:
        called = _list_called(net, images, names)
        if stage % len(names) in called:
            raise
        remedy = (
            f"choose a stage that it calls: {', '.join(map(str, called))}"
            if called
            else "use 'rise'"
        )
        raise LayerError(
            f"the model does not call {names[stage]!r}, its stage {stage}; {remedy}"
        ) from error
    if not target.bound:  # since another method has made this pass
        target.bind(logits)
    return gate


def _list_called(net: nn.Module, images: Tensor, names: Sequence[str]) -> list[int]:
    """Return which of the modules are called in a pass, by their place in the names."""
    with torch.no_grad(), untouched(net):
        passed = record_pass(net, images, partial(forward.call, net), names)
    called = {call.name for call in passed.calls}
    return [stage for stage, name in enumerate(names) if name in called]


@shareable
def _capture(
    model: nn.Module, images: Tensor, target: Target, layer: str
) -> tuple[Tensor, Tensor | None]:
    """Return the mean channel of a module's output, which is (B, K, h, w), and the logits."""
    with capture(model, layer, grad=False) as tap:
        target.bind(tap(images))
        gate = tap.activation
        wide = gate.to(torch.promote_types(gate.dtype, torch.float32))
        return wide.mean(1), target.logits
