"""Running an attribution of captum on one image at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from xcam.core import Target
from xcam.engine import eager, find_module, gradients, unwrap
from xcam.engine.chunks import choose_batch_size
from xcam.engine.clean import bind_clean_pass
from xcam.engine.forward import current_runtime
from xcam.engine.restore import rerun_overwritten
from xcam.forks import importing
from xcam.methods.bridges.linear import LinearModel
from xcam.methods.bridges.repair import repaired, seeded
from xcam.methods.bridges.scores import Scores
from xcam.methods.cam.features import read, require_layer
from xcam.methods.gradient.input_gradients import make_no_gradient_error

__all__ = ["CaptumCall"]


@dataclass(frozen=True)
class CaptumCall:
    """How a row of the table calls captum.

    Each image is explained by itself, so that its map does not depend on the others: on what is
    drawn for them, or on what a method averages over a batch.

    Attributes:
        library: The class in `captum.attr`, or what chooses it by the method's settings.
        arguments: From the method, an image (1, C, H, W), and how many rows go through the model at
            a time, to the arguments of `attribute`.
        options: From the method to those of the class.
        linear: From the method to the linear model to fit, for a class that takes none.
        gives: What comes back: a value for each `"element"`; one for each `"pixel"`, the same in
            all channels; or a `"layer"`'s channels, which are summed.
        differentiates: Whether captum asks for gradients.
    """

    library: str | Callable[[Any], str]
    arguments: Callable[[Any, Tensor, int], dict[str, Any]]
    options: Callable[[Any], dict[str, Any]] = lambda _: {}
    linear: Callable[[Any], LinearModel] | None = None
    gives: Literal["element", "pixel", "layer"] = "element"
    differentiates: bool = False

    def __call__(self, method: Any, model: nn.Module, images: Tensor, target: Target) -> Tensor:  # noqa: ANN401
        """Return raw maps of images (B, C, H, W); see `Method.maps`."""
        net = unwrap(model)
        bind_clean_pass(model, images, target)
        with self._set_grad_mode(net), eager(), repaired(net, "captum"):
            return torch.cat(
                [self._explain(method, net, images, target, row) for row in range(len(images))]
            ).detach()

    def attribute(
        self,
        function: Callable[[Tensor], Tensor],
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

        rows = choose_batch_size(sys.maxsize, image, current_runtime())
        library = self.library if isinstance(self.library, str) else self.library(method)
        explainer = getattr(attr, library)(function, *layer, **self.options(method))
        if self.linear is not None:
            explainer.interpretable_model = self.linear(method)
        arguments = {"inputs": image, **self.arguments(method, image, rows), **more}
        found: Tensor = explainer.attribute(**arguments)
        return found[:1]

    def _explain(
        self,
        method: Any,  # noqa: ANN401
        net: nn.Module,
        images: Tensor,
        target: Target,
        row: int,
    ) -> Tensor:
        exact = torch.promote_types(images.dtype, torch.float32)
        scores = Scores(net, target, row, method.output, images.dtype)
        layer = () if self.gives != "layer" else (find_module(net, require_layer(method.layer))[1],)

        def run() -> Tensor:
            image = images[row : row + 1].detach().to(exact, copy=True)
            image.requires_grad_(self.differentiates)
            with seeded(getattr(method, "seed", 0), image.device):
                return self.attribute(scores, method, image, layer)

        found = self._run(run)
        if self.gives == "layer":
            return read(found, images[row : row + 1], net, method.layer).sum(1)
        return found[:, 0] if self.gives == "pixel" else found

    def _set_grad_mode(self, net: nn.Module) -> AbstractContextManager[object]:
        return gradients(net) if self.differentiates else torch.no_grad()

    def _run(self, run: Callable[[], Tensor]) -> Tensor:
        """Call captum, and say in our words that there is no gradient."""
        if not self.differentiates:
            return run()
        try:
            return rerun_overwritten(run)
        except RuntimeError as error:
            if "appears to not have been used in the graph" not in str(error):
                raise
            raise make_no_gradient_error() from error
