"""A classifier that takes pixels in [0, 1] and normalizes them itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from xcam.core import Headed, TrainableMethod
from xcam.core.categories import Categories, read_categories
from xcam.engine import unwrap

__all__ = ["Normalized", "Space", "check_size", "enter_space"]

Space: TypeAlias = Literal["input", "normalized"]
"""Where images are changed or differentiated: as the model takes them, or as it normalized them.

They differ for a `Normalized` model alone: in `"input"`, zero is black; in `"normalized"`, the
data set's mean color. A model without normalization of its own takes what it takes: `"input"`.
"""


class Normalized(nn.Module):
    """A classifier with its normalization inside, f((x − mean) / std), so that masks mask pixels.

    `mean` and `std` are buffers outside of the state dict, which holds the model's weights alone.
    A change of dtype, by `.double()` of the whole, rounds the numbers that were given, not their
    rounded values; of `.model` alone it leaves mean and deviation as they are.
    Around a net with the head of a trainable method it has its `method`, `fitted` and `head`.

    Args:
        model: A classifier of normalized images; kept as `.model`, so that its `layer4` is this
            net's `model.layer4`.
        mean: The mean of each channel, for pixels in [0, 1]; one number serves any number of
            channels.
        std: The standard deviation of each channel, likewise.
        categories: The names of the classes, in the order of the logits; or a file of them, a text
            with a name a line, or JSON: a list, or a dict between names and numbers.
        input_size: The size (H, W) that the model was made for, or one number for a square.

    Attributes:
        source: The name and keyword arguments with which `xcam.models.load` makes such a net, such
            as `("xcam:simple_cnn", {"num_classes": 10})`, without its weights; None for a net that
            it did not make.

    Raises:
        TypeError: `model` is not a module, or the categories are no strings.
        ValueError: Not one mean and one positive deviation a channel, or a size below one pixel.
        FileNotFoundError: There is no such file of categories.
        FileFormatError: It does not name the classes 0, 1, …
    """

    mean: Tensor
    std: Tensor
    source: tuple[str, dict[str, Any]] | None = None

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        categories: Categories = (),
        input_size: int | tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        means, deviations = [float(value) for value in mean], [float(value) for value in std]
        if not means or len(means) != len(deviations) or min(deviations) <= 0:
            raise ValueError(
                "mean and std must give one number a channel, std above 0, got "
                f"mean={tuple(means)} and std={tuple(deviations)}"
            )
        self.model = model
        self.categories = read_categories(categories)
        self.input_size = check_size(input_size)
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
        self._statistics = {"mean": means, "std": deviations}
        for name in self._statistics:
            # Not in the state dict, so that weights of the model alone can be loaded.
            self.register_buffer(name, self._make_buffer(name, like), persistent=False)
        self.training = model.training

    def forward(self, images: Tensor) -> Any:  # noqa: ANN401 - whatever the model gives
        """Return the model's output for images (B, C, H, W) in [0, 1].

        Raises:
            ValueError: The images do not have a channel for each mean.
        """
        return self.model(self.normalize(images))

    def normalize(self, images: Tensor) -> Tensor:
        """Return what the model is given for images (B, C, H, W) in [0, 1].

        Raises:
            ValueError: The images do not have a channel for each mean.
        """
        if len(self.mean) not in (1, images.shape[1]):
            raise ValueError(
                f"the model is normalized for {len(self.mean)} channels, got images of shape "
                f"{tuple(images.shape)}"
            )
        # In the images' dtype: the model inside may take another one than its first parameter's.
        return (images - self.mean.to(images.dtype)) / self.std.to(images.dtype)

    def _make_buffer(self, name: str, like: Tensor) -> Tensor:
        values = self._statistics[name]
        return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Normalized:
        """Move or convert the module; `.double()` gives 0.485, not 0.485 rounded to float32."""
        kept = [name for name in self._statistics if self._holds_given(name)]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name in kept:
            setattr(self, name, self._make_buffer(name, getattr(self, name)))
        return self

    def _holds_given(self, name: str) -> bool:
        """Return whether a buffer has the numbers that were given, and was not replaced since."""
        buffer: Tensor = getattr(self, name)
        return buffer.is_meta or torch.equal(buffer, self._make_buffer(name, buffer))

    # Each of these raises nn.Module's AttributeError where the model carries no head.

    @property
    def method(self) -> TrainableMethod:
        """Return the trainable method whose head the model carries."""
        return self._headed().method

    @property
    def head(self) -> nn.Module:
        """Return the head that the model carries."""
        return self._headed().head

    @property
    def fitted(self) -> bool:
        """Return whether the head that the model carries has been trained."""
        return self._headed().fitted

    @fitted.setter
    def fitted(self, value: bool) -> None:
        self._headed().fitted = value

    @property
    def classifier(self) -> Normalized:
        """Return the classifier inside a model that carries a head, normalized like the whole.

        It shares its modules with the model, and what was frozen for the head is frozen in it. For
        a classifier of its own, trainable as a whole, take
        `copy.deepcopy(net.classifier).requires_grad_()`.

        Raises:
            ValueError: The method replaces the classifier, and none is left without the head.
        """
        headed = self._headed()
        if headed.method.replaces:
            raise ValueError(
                f"{headed.method.spec.name} replaces the classifier, and there is none without its "
                "head; take the model that the net was made from"
            )
        mean, std = self._statistics["mean"], self._statistics["std"]
        alone = Normalized(
            headed.classifier, mean, std, categories=self.categories, input_size=self.input_size
        )
        alone.mean, alone.std, alone.source = self.mean, self.std, self.source
        return alone

    def _headed(self) -> Headed:
        if not isinstance(self.model, Headed):
            raise AttributeError("the model carries no head")
        return self.model

    def extra_repr(self) -> str:
        """Return the net's own settings: `mean=(…), std=(…), input_size=(…), 1000 categories`."""
        parts = [
            f"{name}=({', '.join(f'{value:.4g}' for value in values.flatten().tolist())})"
            for name, values in (("mean", self.mean), ("std", self.std))
        ]
        if self.input_size:
            parts.append(f"input_size={self.input_size}")
        if self.categories:
            parts.append(f"{len(self.categories)} categories")
        return ", ".join(parts)


def check_size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Return an input size as (H, W); refuse, with a `ValueError`, one below one pixel."""
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"input_size must be (H, W) of at least one pixel, got {size!r}")
    return int(height), int(width)


def enter_space(model: nn.Module, images: Tensor, space: Space) -> tuple[nn.Module, Tensor]:
    """Return the model and images (B, C, H, W) before or after the model's own normalization."""
    inner = unwrap(model)
    if space == "normalized" and isinstance(inner, Normalized):
        return inner.model, inner.normalize(images)
    return model, images
