"""Using a model, and leaving it as it was."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from xcam.engine.wrappers import unwrap
from xcam.errors import ModelOutputError

__all__ = ["gradients", "random_states", "untouched"]

_lock = threading.RLock()
_guarded: list[set[int]] = []  # ids of the modules of each guarded model, of the thread inside


def _start_anew() -> None:
    """Forget, in a forked process, what a thread that it does not have will never release."""
    global _lock, _guarded
    _lock, _guarded = threading.RLock(), []


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


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
        with random_states(), _frozen(model):
            guarded.append({id(module) for module in model.modules()})
            try:
                yield
            finally:
                guarded.pop()


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    modes = [(m, m.training) for m in model.modules() if hasattr(m, "training")]  # frozen: none
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    buffers = [
        (module, name, buffer, _values(buffer))
        for module in model.modules()
        for name, buffer in module._buffers.items()
    ]
    try:
        for module, _ in modes:
            module.training = False
        for parameter, _, _ in parameters:
            parameter.grad = None
            _set_requires_grad(parameter, False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, trainable, gradient in parameters:
            _set_requires_grad(parameter, trainable)
            parameter.grad = gradient
        for module, name, buffer, values in buffers:
            module._buffers[name] = buffer
            if buffer is not None and values is not None:
                _write(buffer, values)


def _set_requires_grad(parameter: nn.Parameter, trainable: bool) -> None:
    with torch.inference_mode(parameter.is_inference()):  # torch refuses it outside
        parameter.requires_grad_(trainable)


def _values(buffer: Tensor | None) -> Tensor | None:
    if buffer is None or (buffer.layout == torch.strided and 0 in buffer.stride()):
        return None  # nobody can write to an expanded tensor, neither the model nor we
    return buffer.detach().clone()


def _write(buffer: Tensor, values: Tensor) -> None:
    # Through `.data`, which does not raise the tensor's version: a graph of the caller's that has
    # saved the buffer can still be differentiated. Even if the version has not changed, since
    # models write through `.data`, too.
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
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_inference():
            raise ModelOutputError(
                f"{name!r} of the model was made under torch.inference_mode, so there are no "
                "gradients; make the model, or load its weights, outside"
            )
    with torch.inference_mode(False), torch.enable_grad():
        yield
