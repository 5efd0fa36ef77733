"""Running an attribution of captum on one image at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from xcam.core import Output, Target
from xcam.engine import eager, find_module, forward, gradients, unwrap
from xcam.engine.chunks import choose_batch_size
from xcam.engine.clean import bind_clean_pass
from xcam.engine.restore import rerun_overwritten
from xcam.errors import LayerError
from xcam.forks import importing
from xcam.methods.bridges.repair import repaired, seeded
from xcam.methods.bridges.scores import Scores
from xcam.methods.bridges.unrolled import Route, Unrolled
from xcam.methods.cam.features import capture_activations, read, require_layer
from xcam.methods.gradient.input_gradients import make_no_gradient_error

__all__ = ["CaptumCall"]

Arguments: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class CaptumCall:
    """How a row of the table calls captum.

    Each image is explained by itself, so that its map does not depend on the others: on what is
    drawn for them, or on what a method averages over a batch.

    Attributes:
        library: The class in `captum.attr`, or what chooses it by the method's settings.
        arguments: From the method, an image (1, C, H, W), and how many rows go through the model at
            a time, to the arguments of `attribute`; a list for the mean of several calls.
        options: From the method to those of the class.
        tune: Sets attributes of the object of captum, by the method and the net.
        gives: What comes back: a value for each `"element"`; one for each `"pixel"`, the same in
            all channels; or a `"layer"`'s channels, which are summed. With the setting `at`, it is
            that layer's channels, by captum's `Layer…` class.
        differentiates: Whether captum asks for gradients.
        unrolls: Which functions captum must see as modules, for methods that have rules for them:
            it runs a copy of the net in which they are.
        prepare: Sets the rules of that copy by the method's settings, before each image.
        adds_up: Whether captum is called with pairs of an image and a baseline, and what it gives
            should add up to the difference of their scores; it is noted where it does not, but in
            half precision.
    """

    library: str | Callable[[Any], str]
    arguments: Callable[[Any, Tensor, int], Arguments | list[Arguments]]
    options: Callable[[Any], Arguments] = lambda method: {}
    tune: Callable[[Any, Any, nn.Module], None] = lambda explainer, method, net: None
    gives: Literal["element", "pixel", "layer"] = "element"
    differentiates: bool = False
    unrolls: Mapping[Any, Route] | None = None
    prepare: Callable[[Any, nn.Module], None] = lambda method, net: None
    adds_up: bool = False

    def __call__(self, method: Any, model: nn.Module, images: Tensor, target: Target) -> Tensor:  # noqa: ANN401
        """Return raw maps of images (B, C, H, W); see `Method.maps`."""
        net = unwrap(model)
        activation = None
        if getattr(method, "times_activation", False) and method.path == "image":
            activation = capture_activations(model, images, target, method.layer)
        else:
            bind_clean_pass(model, images, target)
        layer = self._find_layer(method, net)
        with self._set_grad_mode(net), eager(), repaired(net, "captum"):
            run: nn.Module = net
            if self.unrolls is not None:
                run = Unrolled(net, self.unrolls, images.detach(), target.logits)
            found = torch.cat(
                [
                    self._explain(method, run, layer, images, target, row)
                    for row in range(len(images))
                ]
            )
        if layer is not None:
            found = read(found, images, net, layer)
            return (found if activation is None else found * activation).sum(1)
        return found[:, 0] if self.gives == "pixel" else found

    def attribute(
        self,
        function: nn.Module,
        method: Any,  # noqa: ANN401
        image: Tensor,
        layer: tuple[nn.Module, ...] = (),
        **more: Any,  # noqa: ANN401
    ) -> Tensor:
        """Return what captum gives for an image (1, C, H, W).

        Args:
            function: From images to scores.
            method: With the settings.
            image: What is explained.
            layer: The layer, for a method that has one.
            more: Arguments of captum's `attribute`.
        """
        with importing():
            from captum import attr

        rows = choose_batch_size(sys.maxsize, image, forward.current_runtime())
        library = self.library if isinstance(self.library, str) else self.library(method)
        library = f"Layer{library}" if layer and self.gives != "layer" else library
        explainer = getattr(attr, library)(function, *layer, **self.options(method))
        self.tune(explainer, method, function)
        given = self.arguments(method, image, rows)
        found: list[Tensor] = []
        for arguments in given if isinstance(given, list) else [given]:
            found.append(explainer.attribute(**{"inputs": image, **arguments, **more})[:1].detach())
            if self.adds_up and not layer and isinstance(function, Scores):
                _check_sum(found[-1], function.last, method.spec.name)
        return torch.stack(found).mean(0)

    def _explain(
        self,
        method: Any,  # noqa: ANN401
        net: nn.Module,
        layer: str | None,
        images: Tensor,
        target: Target,
        row: int,
    ) -> Tensor:
        exact = torch.promote_types(images.dtype, torch.float32)
        output: Output = getattr(method, "output", "logit")
        # Captum joins an image and its baselines, and reads a layer of the last pass that it sees.
        together = self.unrolls is not None or layer is not None
        scores = Scores(net, target, row, output, images.dtype, together)
        within = net.net if isinstance(net, Unrolled) else net
        modules = () if layer is None else (within.get_submodule(layer),)

        def run() -> Tensor:
            image = images[row : row + 1].detach().to(exact, copy=True)
            image.requires_grad_(self.differentiates)
            self.prepare(method, net)
            with seeded(getattr(method, "seed", 0), image.device):
                return self.attribute(scores, method, image, modules)

        return self._run(run)

    def _find_layer(self, method: Any, net: nn.Module) -> str | None:  # noqa: ANN401
        """Return the name of the layer that is explained; None for the image."""
        if self.gives == "layer":
            return find_module(net, require_layer(method.layer))[0]
        at = getattr(method, "at", None)
        return None if at is None else find_module(net, at)[0]

    def _set_grad_mode(self, net: nn.Module) -> AbstractContextManager[object]:
        return gradients(net) if self.differentiates else torch.no_grad()

    def _run(self, run: Callable[[], Tensor]) -> Tensor:
        """Call captum, and say in our words that there is no gradient."""
        if not self.differentiates:
            return run()
        try:
            return rerun_overwritten(run)
        except RuntimeError as error:
            if "appears to not have been used in the graph" in str(error):
                raise make_no_gradient_error() from error
            if "used more than once" not in str(error) or self.unrolls is None:
                raise
            raise _make_rule_error(self.library, error) from error
        except TypeError as error:
            if "no rule defined" not in str(error):
                raise
            raise _make_rule_error(self.library, error) from error


def _check_sum(found: Tensor, scores: Tensor | None, method: str) -> None:
    """Note that values do not add up to the difference of the two scores."""
    if scores is None or len(scores) != 2:
        return
    change = scores[0] - scores[1]
    scale = torch.maximum(change.abs(), 0.05 * found.abs().sum())
    if (found.sum() - change).abs() > 0.05 * scale:
        forward.note(
            f"the maps of {method} do not add up to the change of the score: the model has "
            "operations without a rule in it, such as products of features; 'integrated_gradients' "
            "needs no rules"
        )


def _make_rule_error(library: object, error: Exception) -> LayerError:
    """Return the error for a net with layers that captum has no rule for."""
    reason = " ".join(str(error).split()).partition(". ")[0]
    return LayerError(
        f"captum's {library} cannot explain the model: {reason}; use a method without rules for "
        "layers, such as 'integrated_gradients'"
    )
