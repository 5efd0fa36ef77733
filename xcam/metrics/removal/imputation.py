"""Linear imputation: removed pixels become weighted means of their neighbors, solved in batches.

The unknown pixels of a mask form a graph Laplacian, which conjugate gradients solve for all rows
and channels at once. The preconditioner is one multigrid cycle over halved grids: without it the
number of iterations grows with the size of the hole, with it ten or so serve any mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["impute"]

_SWEEPS = 4  # of Jacobi on the coarsest grid, a few pixels wide
_LIMIT = 200  # iterations; about ten are needed
_SELDOM = 4  # iterations between two looks where looking waits for a device


def impute(images: Tensor, removed: Tensor, tolerance: float = 1e-5) -> Tensor:
    """Fill removed pixels so that each is the weighted mean of its eight neighbors.

    Edge neighbors weigh 1/6, diagonal ones 1/12; those outside the image are left out and the
    others' weights renormalized. Removed neighbors are unknowns of the same linear system. Where
    everything is removed the system has no solution: the image's mean color is taken (Rong et
    al., 2022, arXiv:2202.00449).

    Args:
        images: (R, C, H, W).
        removed: (R, H, W) bool.
        tolerance: Of the solution, as a share of the largest distance of a known pixel from the
            mean of the known ones.

    Returns:
        (R, C, H, W), those that are not removed as they were. A row does not depend on the others.

    Raises:
        RuntimeError: No convergence, as with a tolerance below the precision of the images.
    """
    values = images.to(torch.promote_types(images.dtype, torch.float32))
    unknown = removed[:, None]
    known = (~unknown).to(values.dtype)
    count = known.sum((2, 3), keepdim=True)
    mean = (values * known).sum((2, 3), keepdim=True) / count.clamp(min=1)
    mean = torch.where(count > 0, mean, values.mean((2, 3), keepdim=True))
    # In units of what varies, so that rounding and the tolerance are relative to it.
    distance = (values - mean) * known
    unit = distance.abs().amax((2, 3), keepdim=True)
    unit = unit.where(unit > 0, 1)
    levels = _levels(known)
    height, width = images.shape[2:]
    right, bottom = (levels[0].unknown.shape[3] - width, levels[0].unknown.shape[2] - height)
    wanted = levels[0].unknown * _neighbors(F.pad(distance / unit, (0, right, 0, bottom)))
    solved = _conjugate_gradients(levels, wanted, tolerance)[..., :height, :width]
    return torch.where(unknown, (mean + unit * solved).to(images.dtype), images)


@dataclass(frozen=True, eq=False)
class _Level:
    """A grid of the multigrid cycle.

    Attributes:
        unknown: (R, 1, h, w), 1 where a value is solved for, else 0.
        degree: (1, 1, h, w), the sum of the weights of a pixel's neighbors inside the image.
    """

    unknown: Tensor
    degree: Tensor

    def laplacian(self, values: Tensor) -> Tensor:
        """Apply the operator of the system to values that are zero where pixels are known."""
        return self.degree * values - self.unknown * _neighbors(values)


def _binomial(values: Tensor) -> Tensor:
    """Sum with weights (1, 2, 1) along each axis, with zeros around.

    By slices: on a CPU ten times as fast as a convolution or pooling, and on a GPU never in TF32.
    """
    padded = F.pad(values, (1, 1, 1, 1))
    for _ in range(2):
        padded = padded[..., 1:] + padded[..., :-1]
    for _ in range(2):
        padded = padded[..., 1:, :] + padded[..., :-1, :]
    return padded


def _neighbors(values: Tensor) -> Tensor:
    """Return the sum of each pixel's neighbors, weighted 1/6 and 1/12."""
    return (_binomial(values) - 4 * values) / 12


def _down(values: Tensor) -> Tensor:
    """Sum onto the next grid: the transpose of `_up`, as the cycle must be symmetric."""
    rows = _binomial(values)
    rows = rows[..., ::2, :] + rows[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]) / 16


def _up(values: Tensor) -> Tensor:
    """Interpolate bilinearly from the next grid."""
    return _binomial(values.repeat_interleave(2, -1).repeat_interleave(2, -2)) / 16


def _levels(known: Tensor) -> list[_Level]:
    """Return the grids for masks (R, 1, H, W), each half as fine, to about four pixels a side.

    A coarse pixel is unknown if all that it stands for is.
    """
    height, width = known.shape[2:]
    depth = max(0, (min(height, width) // 4).bit_length() - 1)
    right, bottom = -width % 2**depth, -height % 2**depth
    inside = F.pad(torch.ones_like(known[:1]), (0, right, 0, bottom))
    known = F.pad(known, (0, right, 0, bottom))
    levels = []
    for halvings in range(depth + 1):
        if halvings:
            known, inside = F.max_pool2d(known, 2), F.max_pool2d(inside, 2)
        degree = _neighbors(inside)
        levels.append(_Level(inside - known, degree.where(degree > 0, 1)))
    return levels


def _cycle(levels: list[_Level], residual: Tensor) -> Tensor:
    """Run a symmetric V-cycle with Jacobi sweeps, and return about the error of this residual."""
    level, *coarser = levels
    error = residual / level.degree
    if not coarser:
        for _ in range(_SWEEPS):
            error = error + (residual - level.laplacian(error)) / level.degree
        return error
    left = _down(residual - level.laplacian(error)) * coarser[0].unknown
    error = error + _up(_cycle(coarser, left)) * level.unknown
    return error + (residual - level.laplacian(error)) / level.degree


def _conjugate_gradients(levels: list[_Level], wanted: Tensor, tolerance: float) -> Tensor:
    """Solve laplacian(x) = wanted, each row and channel by itself."""

    def dot(first: Tensor, second: Tensor) -> Tensor:
        return (first * second).sum((2, 3), keepdim=True)

    solution, residual = torch.zeros_like(wanted), wanted
    error = direction = _cycle(levels, residual)
    energy = dot(residual, error)
    every = 1 if wanted.device.type == "cpu" else _SELDOM
    for iteration in range(_LIMIT):
        going = ~(error.abs().amax((2, 3), keepdim=True) <= tolerance)  # so is what is not finite
        if iteration % every == 0 and not bool(going.any()):
            return solution
        image = levels[0].laplacian(direction)
        # What has converged stands still, so that no row depends on how long others take.
        length = torch.where(going, energy / dot(direction, image), 0)
        solution = solution + length * direction
        residual = residual - length * image
        error = torch.where(going, _cycle(levels, residual), error)
        before, energy = energy, dot(residual, error)
        direction = error + torch.where(going, energy / before, 0) * direction
    raise RuntimeError(
        f"the imputation of removed pixels did not converge in {_LIMIT} iterations; use a larger "
        "tolerance, or images of a higher precision"
    )
