"""Pictures as the tensors that a net takes, in batches; what cannot be read is noted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xcam.cli.photos import Photo
from xcam.cli.pictures import make_test_transform

if TYPE_CHECKING:
    from torch import Tensor

    from xcam.data.files import Transform
    from xcam.models import Normalized

__all__ = ["PictureReader"]

_LOAD = 16  # pictures explained together


@dataclass
class PictureReader:
    """Reads pictures as a net takes them; what cannot be read is noted in `failures`."""

    net: Normalized
    transform: Transform | None
    device: str
    failures: list[str]

    @classmethod
    def create(
        cls, net: Normalized, resize: str | None, device: str, failures: list[str]
    ) -> PictureReader:
        """Create a reader, of pictures that are resized in a way of their own if one is given."""
        if resize is None:
            return cls(net, None, device, failures)
        if net.input_size is None:
            raise ValueError(
                "--resize needs a model with a fixed input size, and this one takes any"
            )
        return cls(net, make_test_transform(resize, net.input_size), device, failures)

    def read_batches(self, photos: Sequence[Photo]) -> Iterator[tuple[list[Photo], Tensor]]:
        """Yield pictures of one size in batches, with their photos."""
        import torch

        pending: list[tuple[Photo, Tensor]] = []
        for photo in photos:
            try:
                image = self.read(photo.path)
            except (OSError, ValueError) as error:
                if str(error) not in self.failures:  # a picture may be read twice
                    self.failures.append(str(error))
                continue
            if pending and (len(pending) == _LOAD or pending[0][1].shape != image.shape):
                yield [one for one, _ in pending], torch.stack([image for _, image in pending])
                pending = []
            pending.append((photo, image))
        if pending:
            yield [one for one, _ in pending], torch.stack([image for _, image in pending])

    def read_example(self, photos: Sequence[Photo]) -> Tensor:
        """Return the first picture, (1, C, H, W), or an empty one where there is none."""
        import torch

        for _, batch in self.read_batches(photos):
            return batch[:1]
        if photos:
            raise ValueError(self.failures[0])
        channels = 3 if len(self.net.mean) == 1 else len(self.net.mean)
        return torch.zeros(1, channels, *(self.net.input_size or (224, 224)), device=self.device)

    def read(self, path: Path) -> Tensor:
        """Return a picture (C, H, W) in [0, 1], of the size that the net takes."""
        from xcam._explain.pictures import load_images
        from xcam.imaging import read_image, read_pixels

        if self.transform is not None:
            image: Tensor = self.transform(read_pixels(path))
        elif self.net.input_size is None:
            image = read_image(path)
        else:
            (image,) = load_images(self.net, [path])
        return image.to(self.device)
