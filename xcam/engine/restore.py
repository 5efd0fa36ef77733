"""Using a model, and leaving it as it was."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from xcam.engine.structure import compare_once, list_tensors, walk
from xcam.engine.wrappers import unwrap
from xcam.errors import ModelOutputError
from xcam.forks import reset_in_forks

__all__ = ["gradients", "guarded_model", "random_states", "rerun_overwritten", "untouched"]

T = TypeVar("T")

_lock = threading.RLock()
_guarded: list[set[int]] = []  # ids of the modules of each guarded model, of the thread inside
_model: ContextVar[nn.Module | None] = ContextVar("xcam_guarded_model", default=None)


@reset_in_forks
def _release() -> None:
    """Forget what a thread that is not in this process will never release."""
    global _lock, _guarded
    _lock, _guarded = threading.RLock(), []


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode with frozen parameters, and back, whatever happens.

    Restored are each module's mode, each parameter's `requires_grad` and `.grad`, each buffer's
    identity and values, and the global random states. Parameter values are not: a copy would take
    as much memory as the model, which only one that writes to them in its forward needs. Modes are
    set as flags, without calling `eval()`, which some modules override to merge weights. One thread
    at a time is inside: modes are the model's, random states the process's.

    Inside a block for the same model, or for one that holds it, a block does nothing: the outer
    one restores.
    """
    with _lock:
        guarded = _guarded
        if any(id(unwrap(model)) in modules for modules in guarded):
            yield
            return
        modules = [*walk(model)]
        with random_states(), _frozen(modules), compare_once():
            guarded.append({id(module) for module in modules})
            token = _model.set(model)
            try:
                yield
            finally:
                _model.reset(token)
                guarded.pop()


def guarded_model() -> nn.Module | None:
    """Return the model that the block of `untouched` around restores; None outside of any."""
    return _model.get()


@contextmanager
def _frozen(modules: list[nn.Module]) -> Iterator[None]:
    modes = [(m, m.training) for m in modules if hasattr(m, "training")]  # frozen: none
    every = (p for module in modules for p in module._parameters.values() if p is not None)
    parameters = [(p, p.requires_grad, p.grad) for p in {id(p): p for p in every}.values()]
    buffers = [(m, name, buffer) for m in modules for name, buffer in m._buffers.items()]
    values = _Values([buffer for _, _, buffer in buffers if buffer is not None])
    try:
        _set_modes((module, False) for module, _ in modes)
        _set_parameters((parameter, False, None) for parameter, _, _ in parameters)
        yield
    finally:
        _set_modes(modes)
        _set_parameters(parameters)
        for module, name, buffer in buffers:
            module._buffers[name] = buffer
        values.restore()


# Flags are written only where they differ: reading one takes a tenth of the time.


def _set_modes(modes: Iterable[tuple[nn.Module, bool]]) -> None:
    for module, training in modes:
        if module.training is not training:
            module.training = training


def _set_parameters(parameters: Iterable[tuple[nn.Parameter, bool, Tensor | None]]) -> None:
    for parameter, trainable, gradient in parameters:
        if parameter.requires_grad is not trainable:
            if parameter.is_inference():  # torch refuses it outside of that mode
                with torch.inference_mode():
                    parameter.requires_grad_(trainable)
            else:
                parameter.requires_grad_(trainable)
        if parameter.grad is not gradient:
            parameter.grad = gradient


class _Values:
    """The values of a model's buffers, those of a kind in one tensor.

    On a CPU they are compared before they are written: a model in eval mode seldom writes any, and
    one comparison takes less time than a copy for each of a hundred norms. The version of a buffer
    tells nothing, since models write through `.data` too, and batch norms without raising it. On an
    accelerator the comparison would wait for the device.
    """

    def __init__(self, buffers: list[Tensor]) -> None:
        self._others: list[tuple[Tensor, Tensor]] = []
        self._kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for buffer in buffers:
            if type(buffer) is not Tensor or buffer.layout != torch.strided or buffer.is_quantized:
                self._others.append((buffer, buffer.detach().clone()))
            elif 0 not in buffer.stride():  # nobody can write to an expanded one
                self._kinds.setdefault((buffer.dtype, buffer.device), []).append(buffer)
        self._saved = {kind: _join(members) for kind, members in self._kinds.items()}

    def restore(self) -> None:
        """Write the values back."""
        for kind, members in self._kinds.items():
            saved = self._saved[kind]
            if kind[1].type == "cpu" and torch.equal(_join(members), saved):
                continue
            sizes = [buffer.numel() for buffer in members]
            parts = torch.split(saved.view(kind[0]), sizes)
            for buffer, values in zip(members, parts, strict=True):
                _write(buffer, values.view(buffer.shape))
        for buffer, values in self._others:
            _write(buffer, values)


def _join(buffers: list[Tensor]) -> Tensor:
    """Copy the bytes of buffers of one dtype and device into one tensor; NaN equals NaN there."""
    # Most are vectors of norms already; a call for each takes most of the time.
    flat = [buffer if buffer.ndim == 1 else buffer.reshape(-1) for buffer in buffers]
    with torch.no_grad():
        return torch.cat(flat).view(torch.uint8)


def _write(buffer: Tensor, values: Tensor) -> None:
    # Through `.data`, which does not raise the tensor's version: a graph of the caller's that has
    # saved the buffer can still be differentiated.
    with torch.inference_mode(buffer.is_inference()), torch.no_grad():
        buffer.data.copy_(values)


@contextmanager
def random_states() -> Iterator[None]:
    """Restore the global random states of torch, numpy and Python, whatever happens."""
    python, numpy = random.getstate(), np.random.get_state()
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if used else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def gradients(model: nn.Module) -> Iterator[None]:
    """Turn gradients on, also under the caller's `no_grad` or `inference_mode`.

    Raises:
        ModelOutputError: The model itself was made under `torch.inference_mode`.
    """
    if any(tensor.is_inference() for tensor in list_tensors(model)):
        named = [*model.named_parameters(), *model.named_buffers()]
        name = next(name for name, tensor in named if tensor.is_inference())
        raise ModelOutputError(
            f"{name!r} of the model was made under torch.inference_mode, so there are no "
            "gradients; make the model, or load its weights, outside"
        )
    with torch.inference_mode(False), torch.enable_grad():
        yield


def rerun_overwritten(function: Callable[[], T]) -> T:
    """Call a function that runs a model and differentiates it, once more if the model forbids that.

    A model that works in place on what its backward pass needs, as detectors decode their boxes,
    has gradients only if torch keeps copies of what is overwritten, which takes time and memory.
    """
    try:
        return function()
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        return function()
