"""The score of one image's target as a module, which is what captum takes for a model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xcam.core import Output, Target
from xcam.engine import forward
from xcam.engine.chunks import choose_batch_size, collect
from xcam.methods.gradient.input_gradients import make_no_gradient_error

__all__ = ["Scores"]


class Scores(nn.Module):
    """From changed copies of one image (R, C, H, W), in float32, to their scores (R,).

    Args:
        model: The classifier.
        target: Bound with a clean pass.
        row: Which image of the chunk the copies are of.
        output: What of the model's output is the score.
        dtype: What the model takes.
        together: Whether all copies go through the model in one pass, whatever the batch size.

    Attributes:
        last: Of the last call that was to be differentiated, (R,); None in half precision.
    """

    def __init__(
        self,
        model: nn.Module,
        target: Target,
        row: int,
        output: Output,
        dtype: torch.dtype,
        together: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self._target, self._row, self._output, self._dtype = target, row, output, dtype
        self._together = together
        self.last: Tensor | None = None
        self.training = False  # of itself alone: exported models refuse `eval()`

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores.

        Raises:
            ModelOutputError: They are to be differentiated, and do not depend on the images.
        """
        if not torch.is_grad_enabled():
            return collect(len(images), lambda part: self._score(images[part]), images)
        size = choose_batch_size(len(images), images, forward.current_runtime())
        size = len(images) if self._together else size
        scores = torch.cat([self._score(part) for part in torch.split(images, size)])
        if not scores.requires_grad:
            raise make_no_gradient_error()
        dtypes = {self._dtype, *(weight.dtype for weight in self.model.parameters())}
        half = forward.current_runtime().precision != "full"
        half |= not dtypes.isdisjoint((torch.float16, torch.bfloat16))
        self.last = None if half else scores.detach()
        return scores

    def _score(self, images: Tensor) -> Tensor:
        rows = torch.full((len(images),), self._row, device=images.device)
        prediction = forward.call(self.model, images.to(self._dtype))
        return self._target.scores(prediction, rows, output=self._output)
