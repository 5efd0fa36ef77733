"""Any input that the classifier takes is taken, and stays where it is."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from xcam.testing.checks.device import LeftDeviceError, StayOnDevice
from xcam.testing.checks.facets import AnySubject
from xcam.testing.probe import ContractError

__all__ = ["CHECKS", "make_oblong_images"]


def takes_gray_images(subject: AnySubject) -> None:
    """Require finite values for images of one channel, where the net takes them."""
    images = subject.build_case().images[:2].mean(1, keepdim=True)
    if subject.accepts(images):
        case = subject.build_case(images)
        subject.require_finite(subject.call(case), case, "gray images")


def takes_flat_images(subject: AnySubject) -> None:
    """Require finite values for black images, and a constant gray."""
    case = subject.build_case().select([0, 1])
    case.images[0], case.images[1] = 0.0, 0.5
    subject.require_finite(subject.call(case), case, "images of one color")


def make_oblong_images(subject: AnySubject) -> Iterator[Tensor]:
    """Yield two wide and two tall images, where the net takes them."""
    images = subject.build_case().images[:2]
    height, width = images.shape[2:]
    for dim, half in ((3, images[..., : width // 2]), (2, images[..., : height // 2, :])):
        longer = torch.cat([images, half], dim)
        if subject.accepts(longer):
            yield longer


def stays_on_device(subject: AnySubject) -> None:
    """Require no `.cpu()`, `.to("cpu")`, `.numpy()`, or `.tolist()` of floats."""
    case, net, settings = subject.build_case(), subject.build_net(), subject.placed
    try:
        with StayOnDevice():
            values = subject.call(case, net, settings)  # type: ignore[arg-type]
    except LeftDeviceError as error:
        raise ContractError(
            f"{subject.name} moves values to the host by Tensor.{error}; compute with tensors "
            "on the images' device"
        ) from error
    if values.device != case.images.device:
        raise ContractError(
            f"{subject.name} gives {subject.product} on another device than the images'"
        )


CHECKS = (takes_gray_images, takes_flat_images, stays_on_device)
