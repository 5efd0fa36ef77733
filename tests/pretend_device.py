"""A pretend accelerator: what goes wrong on a GPU, and how often the host waits for it, on a CPU.

Inside `pretend()` the device `"lazy"`, which torch knows and has no backend for, works. A tensor
there holds its values on the CPU, where every operation computes them; what a GPU refuses, such as
an operation on tensors of both devices, raises. Each read by the host, for which a GPU would have
to finish all its work, is recorded with the line of xcam that makes it.
"""

import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import arg_tree_leaves, tree_map

import xcam

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CUDA)])
"""For what no pretended device can do: a test runs on the CPU, and on a GPU where there is one."""

DEVICE = torch.device("lazy", 0)
SOURCES = f"{Path(xcam.__file__).parent}/"
aten = torch.ops.aten

# Where tensors of both devices may meet.
CROSSING = {aten._to_copy.default, aten.copy_.default, aten._copy_from.default}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default,
            aten._index_put_impl_.default, aten._unsafe_index.Tensor}  # fmt: skip
# What a GPU computes takes part in what the host does next: a value, or the size of a result.
READING = {
    aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.allclose, aten.nonzero,
    aten.masked_select, aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.bincount,
    aten.nonzero_numpy, aten.argwhere,
    aten._linalg_eigh, aten._linalg_svd, aten._linalg_check_errors,  # whether it has converged
}  # fmt: skip


class PretendTensor(Tensor):
    """A tensor that says it is on the device, around its values on the CPU."""

    @staticmethod
    def __new__(cls, values, requires_grad=False):
        made = Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            layout=values.layout,
            device=DEVICE,
            requires_grad=requires_grad,
        )
        made.values_on_cpu = values
        return made

    def __repr__(self):
        return f"PretendTensor({self.values_on_cpu})"

    def tolist(self):
        record_read("tolist")
        return self.detach().values_on_cpu.tolist()

    def data_ptr(self):
        return self.values_on_cpu.data_ptr()

    def __reduce_ex__(self, protocol):
        made = (self.detach().cpu(), self.dtype, str(self.device), self.requires_grad)
        return torch._utils._rebuild_device_tensor_from_cpu_tensor, made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})

    # Without it each function of torch would wrap its results once more, and the subclass be seen.
    __torch_function__ = torch._C._disabled_torch_function_impl


class _Dispatch(TorchDispatchMode):
    """Sees what makes tensors on the device from nothing, or from tensors of the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


_reads: list[Counter] = []


@contextmanager
def pretend():
    """Let the device be there within the block; yield the reads by the host, counted by line."""
    library = torch.library.Library("aten", "IMPL", "Lazy")
    # `torch.tensor` and `new_tensor` go round the mode.
    for name in ("empty.memory_format", "empty_strided", "copy_", "_copy_from"):
        library.impl(name, _make_kernel(name))
    synchronize = torch.accelerator.synchronize
    torch.accelerator.synchronize = lambda _device=None: record_read("synchronize")
    _reads.append(Counter())
    try:
        with _Dispatch():
            yield _reads[-1]
    finally:
        _reads.pop()
        torch.accelerator.synchronize = synchronize
        library._destroy()


def _make_kernel(name):
    packet, _, overload = name.partition(".")
    func = getattr(getattr(aten, packet), overload or "default")

    def kernel(*args, **kwargs):
        with _disable_current_modes():
            return compute(func, args, kwargs)

    return kernel


def record_read(what):
    """Count a read of the host, by the innermost line of xcam on the stack."""
    frame, line = sys._getframe(1), "elsewhere"
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(SOURCES):
            line = f"{file.removeprefix(SOURCES)}:{frame.f_lineno}"
            break
        frame = frame.f_back
    _reads[-1][f"{line} {what}"] += 1


def compute(func, args, kwargs):
    """Run an operation on the values, refuse what a GPU refuses, and record what it waits for."""
    leaves = arg_tree_leaves(*args, **kwargs)
    away = [leaf for leaf in leaves if isinstance(leaf, PretendTensor)]
    wanted = kwargs.get("device")
    is_away = bool(away) if wanted is None else torch.device(wanted).type == DEVICE.type
    if is_away and kwargs.get("generator") is not None:
        raise RuntimeError(f"expected a generator of the device: {func} got one of the host")
    if away:
        _refuse_mixing(func, args, leaves)
        if func.overloadpacket in READING or _selects_by_mask(func, args):
            record_read(func.overloadpacket.__name__)
    if func is aten.copy_.default and away and not isinstance(args[0], PretendTensor):
        is_away = False
    if away and func in CROSSING and not is_away:
        record_read(func.overloadpacket.__name__)
    plain_args, plain_kwargs = tree_map(_unwrap, (args, kwargs))
    if is_away and wanted is not None:
        plain_kwargs["device"] = torch.device("cpu")
    plain = arg_tree_leaves(*plain_args, **plain_kwargs)
    given = {id(value): leaf for value, leaf in zip(plain, leaves, strict=True)}

    def wrap(value):
        if not isinstance(value, Tensor) or isinstance(value, PretendTensor):
            return value
        if id(value) in given:  # in place
            return given[id(value)]
        return PretendTensor(value) if is_away else value

    return tree_map(wrap, func(*plain_args, **plain_kwargs))


def _unwrap(value):
    return value.values_on_cpu if isinstance(value, PretendTensor) else value


def _refuse_mixing(func, args, leaves):
    """Raise where a GPU would: on tensors of the host that are no single values, or results."""
    here = [t for t in leaves if isinstance(t, Tensor) and not isinstance(t, PretendTensor)]
    if not here or func in CROSSING:
        return
    if func in INDEXING and isinstance(args[0], PretendTensor):
        here = [t for t in args[2:3] if isinstance(t, Tensor) and not isinstance(t, PretendTensor)]
    writes_here = func._schema.is_mutable and any(args[0] is each for each in here)
    if writes_here or func in (aten.cat.default, aten.stack.default) or any(t.ndim for t in here):
        shapes = [tuple(tensor.shape) for tensor in here]
        raise RuntimeError(
            f"expected all tensors to be on the same device: {func} got tensors of shape {shapes} "
            "on the host"
        )


def _selects_by_mask(func, args):
    """Return whether the number of places that are read or written depends on a mask's values."""
    if func not in INDEXING:
        return False
    masks = [
        i for i in args[1] if isinstance(i, PretendTensor) and i.dtype in (torch.bool, torch.uint8)
    ]
    is_filled = len(args) > 2 and args[2].numel() == 1
    return bool(masks) and not is_filled


@dataclass(frozen=True)
class Accelerator:
    """A device beside the host's CPU, pretended or real.

    Attributes:
        device: Where tensors go.
        reads: By the host, counted by line; None on a real device.
        tolerance: How far numbers may be from the CPU's, as a share of the largest.
    """

    device: torch.device
    reads: Counter | None = None
    tolerance: float = 1e-3

    def assert_close(self, found, expected, **options):
        finite = expected[expected.isfinite()].abs()
        atol = self.tolerance * max(1.0, float(finite.max()) if len(finite) else 1.0)
        assert_close(found.cpu(), expected, atol=atol, rtol=self.tolerance, **options)

    def assert_few_reads(self, bound, but=""):
        """Assert the number of reads since the last look, without those of a kind, and forget them.

        Args:
            bound: The most that there may be.
            but: What the reads that are not meant have in their name.
        """
        if self.reads is not None:
            counted = {line: n for line, n in self.reads.items() if not (but and but in line)}
            assert sum(counted.values()) <= bound, counted
            self.reads.clear()


@contextmanager
def accelerate(kind):
    """Let an accelerator be there within the block: `"pretend"`, or a device of torch's."""
    if kind != "pretend":
        yield Accelerator(torch.device(kind, 0))
        return
    with pretend() as reads:
        yield Accelerator(DEVICE, reads, tolerance=1e-5)
