"""One recorder of a forward pass: what each module was given, and what it returned.

All hooks on the modules of a user's model are registered here. (The contract suite hooks the nets
of its own checks, and a `Capture` the scores that it differentiates.) They live for one block, act
only on passes of the thread that entered it unless `acts` says otherwise, and run behind the hooks
that were there before, so that a `capture` around the block still sees what a module itself
returned.

To find out what happens in a pass:

    passed = record_pass(net, images)             # all modules, in the order of return
    passed["layer4"].output, passed["fc"].inputs[0], passed["relu"].times, passed.output

To read or change a module's input or output in one's own passes:

    with hooks(net.layer4, after=lambda inputs, output: output * mask):
        logits = net(images)

`before` gets the positional arguments and may return others; `after` gets them and the output, and
may return another output. Returning None changes nothing. Compiled code runs without hooks: enter
`xcam.engine.eager()` around the pass, as `record_pass` does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from xcam.engine.wrappers import eager

__all__ = [
    "Call",
    "Edge",
    "Trace",
    "get_edge",
    "hooks",
    "output_tensors",
    "record_pass",
    "replace_first",
]

Before: TypeAlias = Callable[[tuple[Any, ...]], Any]
After: TypeAlias = Callable[[tuple[Any, ...], Any], Any]
Edge: TypeAlias = tuple[Any, int]
"""A tensor's place in autograd's graph: the node that made it, and which of its results it is."""


@dataclass(frozen=True, eq=False)
class Call:
    """A module's last call in a recorded pass.

    Attributes:
        name: As in `named_modules()` of the net.
        module: The module.
        inputs: Its positional arguments.
        output: What it returned.
        times: How often it was called in the pass.
        edges: Where the first floating-point tensor of each call was in autograd's graph when it
            was returned; none without a graph.
    """

    name: str
    module: nn.Module
    inputs: tuple[Any, ...]
    output: Any
    times: int
    edges: tuple[Edge, ...] = ()

    @property
    def tensor(self) -> Tensor | None:
        """Return the first floating-point tensor of the output; None if it holds none."""
        return next(output_tensors(self.output), None)

    @property
    def input_shape(self) -> torch.Size | None:
        """Return the shape of the first argument; None if that is no tensor."""
        first = self.inputs[0] if self.inputs else None
        return first.shape if isinstance(first, Tensor) else None

    @property
    def output_shape(self) -> torch.Size | None:
        """Return the shape of the output; None if that is no tensor."""
        return self.output.shape if isinstance(self.output, Tensor) else None


@dataclass(frozen=True, eq=False)
class Trace:
    """A recorded forward pass.

    Attributes:
        calls: One for each module that was called, in the order of their last return.
        images: What the net was given.
        output: What the net returned.
    """

    calls: tuple[Call, ...]
    images: Tensor
    output: Any

    def __getitem__(self, name: str) -> Call:
        """Return the call of a module by its name; `KeyError` if it was not called."""
        for call in self.calls:
            if call.name == name:
                return call
        raise KeyError(name)


def record_pass(
    net: nn.Module,
    images: Tensor,
    run: Callable[[Tensor], Any] | None = None,
    modules: Collection[str] | None = None,
) -> Trace:
    """Run a net once and record its modules' calls.

    The caller decides about modes and gradients. All inputs and outputs stay in memory as long as
    the trace does.

    Args:
        net: Without wrappers.
        images: What `run` takes.
        run: What runs the net, if not the net itself.
        modules: Names of the modules to record; None for all inside the net.
    """
    calls: dict[str, Call] = {}

    def record(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
        earlier = calls.pop(name, None)  # the order is that of the last return
        times, edges = (earlier.times, earlier.edges) if earlier else (0, ())
        tensor = next(output_tensors(output), None)
        edge = None if tensor is None else get_edge(tensor)
        edges = edges if edge is None else (*edges, edge)
        calls[name] = Call(name, module, inputs, output, times + 1, edges)

    with ExitStack() as stack:
        stack.enter_context(eager())
        for name, module in net.named_modules():
            scripted = isinstance(module, torch.jit.ScriptModule)  # which takes no hooks
            if name and not scripted and (modules is None or name in modules):
                stack.enter_context(hooks(module, after=partial(record, name, module)))
        output = (run or net)(images)
    return Trace(tuple(calls.values()), images, output)


@contextmanager
def hooks(
    module: nn.Module,
    before: Before | None = None,
    after: After | None = None,
    acts: Callable[[], bool] | None = None,
) -> Iterator[None]:
    """Call functions before and after a module in the passes that this thread makes in the block.

    Args:
        module: The module.
        before: From its positional arguments to others, or to None to leave them.
        after: From its arguments and its output to another output, or to None to leave it.
        acts: Whether a call of the module is meant; by default if this thread makes it.
    """
    # The system's number: a forked process may give Python's to a thread of its own.
    thread = threading.get_native_id()
    acts = acts or (lambda: threading.get_native_id() == thread)
    with ExitStack() as stack:
        if before:
            stack.callback(module.register_forward_pre_hook(_Hook(before, acts)).remove)
        if after:
            stack.callback(module.register_forward_hook(_Hook(after, acts)).remove)
        yield


class _Hook:
    """A hook that acts on some calls only, and on none of a copy of its module."""

    def __init__(self, function: Callable[..., Any], acts: Callable[[], bool]) -> None:
        self._function, self._acts = function, acts

    def __call__(self, _module: nn.Module, *arguments: Any) -> Any:  # noqa: ANN401
        return self._function(*arguments) if self._acts() else None

    def __deepcopy__(self, memo: object) -> _Hook:
        # A model may copy itself in its forward: that copy's passes are its own.
        return _Hook(self._function, lambda: False)


def output_tensors(output: object) -> Iterator[Tensor]:
    """Yield the floating-point tensors in an output, in their order."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
        return
    parts: Sequence[Any] = ()
    if isinstance(output, Mapping):
        parts = [*output.values()]
    elif isinstance(output, Sequence) and not isinstance(output, str):
        parts = output
    for part in parts:
        yield from output_tensors(part)


def get_edge(tensor: Tensor) -> Edge | None:
    """Return a tensor's place in autograd's graph; None if it has no graph."""
    if not tensor.requires_grad:
        return None
    node, number = torch.autograd.graph.get_gradient_edge(tensor)[:2]
    return node, number


def replace_first(output: object, change: Callable[[Tensor], Tensor]) -> object:
    """Return the output with its first floating-point tensor changed; None if there is none."""
    if isinstance(output, Tensor):
        return change(output) if output.is_floating_point() else None
    if isinstance(output, dict):
        for key, value in output.items():
            changed = replace_first(value, change)
            if changed is not None:
                copy = output.copy()
                copy[key] = changed
                return copy
    if isinstance(output, tuple | list):
        for index, value in enumerate(output):
            changed = replace_first(value, change)
            if changed is not None:
                items = [*output[:index], changed, *output[index + 1 :]]
                return output._make(items) if hasattr(output, "_make") else type(output)(items)
    return None
