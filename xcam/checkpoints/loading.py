"""`load`: the net or the explanation that a file holds."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xcam.checkpoints.record import FORMAT, KEY, Record
from xcam.checkpoints.source import attach, build
from xcam.checkpoints.tensors import find_dtype, find_ties, get_state
from xcam.core import Method, TrainableMethod, attached_method, explanation_file, find_headed
from xcam.engine import random_states, unwrap
from xcam.errors import FileFormatError, UnknownNameError
from xcam.explanations.loading import load_explanation
from xcam.models import Normalized
from xcam.models.categories import set_categories
from xcam.models.state_dicts import describe_mismatch
from xcam.registry import get_method
from xcam.runs import files

__all__ = ["load", "load_net"]


def load(path: str | Path, model: nn.Module | None = None) -> Any:  # noqa: ANN401 - as torch.load
    """Read a net that `xcam.save` wrote, or an explanation that `Explanation.save` wrote.

    Args:
        path: The file; its header says which it holds.
        model: For a net of one's own; see `xcam.checkpoints.load_net`.

    Returns:
        The net, as `load_net` returns it; or an `Explanation` on the CPU.

    Raises:
        ValueError: A `model` is given for an explanation, or see `load_net`.
        FileNotFoundError: There is no such file.
        FileFormatError: It is damaged, truncated, of a newer format, or not by xcam.
    """
    if files.read_kind(path) != explanation_file.KEY:
        return load_net(path, model)
    if model is not None:
        raise ValueError(f"{str(path)!r} holds an explanation, not a net; omit model=")
    return load_explanation(path)


def load_net(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Read a net that `save` wrote: on the CPU, in eval mode, bit for bit.

    A net from `xcam.models.load` is built whole, without a download. One of your own is passed as
    `model`: its structure is copied, the weights are the file's. The result carries the method that
    it was saved with, which `xcam.explain(net, images)` uses.

    Args:
        path: The file.
        model: The classifier, as it was given to `xcam.fit`, or a net that carries the head
            already; it is left as it was. Where the file names a classifier none is needed; one
            that is given is used instead.

    Raises:
        TypeError: `model` is no module.
        ValueError: The file needs a `model`, or the model carries another method.
        FileNotFoundError: There is no such file.
        FileFormatError: It is damaged, truncated, of a newer format, or no net by xcam; or its
            weights are not those of the model, and what differs is named.
        UnknownNameError: Its method or classifier is not installed here, and `model` carries
            no such head.
        ImportError: The package that builds the classifier is not installed.
    """
    path = Path(path)
    if model is not None and not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    # The caller's grad mode, default device and random state neither matter nor change.
    with torch.inference_mode(False), torch.device("cpu"), random_states():
        header, tensors = files.read_tensors(path, KEY, FORMAT)
        try:
            record = Record.of(header, tensors)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise files.describe_damaged_header(path, error) from error
        attached = None if model is None else attached_method(model)
        method = _make_method(record, path, attached)
        net = _make_net(record, method, model, path).cpu()
        _set_normalization(net, record, path)
        _fill(net, record, path)
    if method is not None:
        headed = find_headed(net)
        headed.method, headed.fitted = method, record.fitted
    return net.eval()


def _make_method(
    record: Record, path: Path, attached: TrainableMethod | None
) -> TrainableMethod | None:
    """Make the file's method; one whose head the model carries need not be registered."""
    if record.method is None:
        return None
    name, parameters = record.method
    made = f"the net in {str(path)!r} was made by the method {name!r}, which"
    try:
        if attached is not None and attached.spec.name == name:
            method: Method = type(attached)(**parameters)
        else:
            method = get_method(name)(**parameters)
    except UnknownNameError as error:
        raise UnknownNameError(f"{made} is not installed here: {error}") from error
    except (TypeError, ValueError) as error:
        raise FileFormatError(
            f"{made} is installed in another version that rejects the parameters: {error}"
        ) from error
    if not isinstance(method, TrainableMethod):
        raise FileFormatError(f"{made} is not a trainable method here")
    return method


def _make_net(
    record: Record, method: TrainableMethod | None, model: nn.Module | None, path: Path
) -> nn.Module:
    """Make a net of any weights: from `model` if there is one, else as the file names it."""
    if model is None:
        if record.backbone is None:
            raise ValueError(
                f"{str(path)!r} holds the weights of a net that xcam.models.load does not build; "
                "pass one like it: xcam.load(path, model=…)"
            )
        return build(record.backbone, method, record.image_shape)
    model = unwrap(model)
    get_state(model)  # refuses one that has no values yet: it cannot be moved
    net = copy.deepcopy(model)
    attached = attached_method(net)
    if attached is None:
        return net if method is None else attach(net, method, record.image_shape)
    if method is None or attached.spec.name != method.spec.name:
        raise ValueError(
            f"the model carries a head of {attached.spec.name!r}, and the net in {str(path)!r} "
            f"{f'one of {method.spec.name!r}' if method else 'none'}; pass the classifier alone"
        )
    return net


def _set_normalization(net: nn.Module, record: Record, path: Path) -> None:
    """Set the fields of each `Normalized` that are not in the state, and the names of classes."""
    modules = dict(net.named_modules())
    for name, saved in record.normalization.items():
        part = modules.get(name)
        if not isinstance(part, Normalized):
            means, deviations = (v.flatten().tolist() for v in (saved.mean, saved.std))
            raise FileFormatError(
                f"the net in {str(path)!r} normalizes its images itself, and the model does not; "
                f"pass xcam.models.Normalized(model, {means}, {deviations})"
            )
        if not (_are_equal(part.mean, saved.mean) and _are_equal(part.std, saved.std)):
            part.mean, part.std = saved.mean, saved.std
        part.input_size = saved.input_size
    if record.categories:
        set_categories(net, record.categories)


def _are_equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _fill(net: nn.Module, record: Record, path: Path) -> None:
    """Give a net the file's weights, their types and ties, if they are those of such a net."""
    tensors = get_state(net)
    fault = describe_mismatch(tensors, record.state) or _find_untied(
        find_ties(tensors), record.tied
    )
    if fault:
        raise FileFormatError(
            f"the weights in {str(path)!r} are not those of this {type(net).__name__}: {fault}"
        )
    if record.dtype is not None and find_dtype(net) != record.dtype:
        for tensor in [*net.parameters(), *net.buffers()]:
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(record.dtype)
    for name, tensor in tensors.items():  # in nets of mixed precision not all are of one type
        values = tensor.data.to(record.state[name].dtype)
        tensor.data = values.clone() if 0 in values.stride() else values  # expanded: read only
    filled = net.state_dict()  # with the versions of its modules, at which some of them look
    filled.update(record.state)
    net.load_state_dict(filled)
    _tie(net, record.tied)


def _find_untied(here: Mapping[str, str], saved: Mapping[str, str]) -> str | None:
    """Describe the first two tensors that are one in the net and two in the file."""
    for name, first in here.items():
        if saved.get(name, name) != saved.get(first, first):
            return f"they have two tensors for {first!r} and {name!r}, which are one in the model"
    return None


def _tie(net: nn.Module, tied: Mapping[str, str]) -> None:
    """Make one tensor of those that were one when they were saved."""
    tensors = get_state(net)
    here = find_ties(tensors)
    for name, first in tied.items():
        if here.get(name, name) != here.get(first, first):
            owner, _, leaf = name.rpartition(".")
            module = net.get_submodule(owner)
            members = module._parameters if leaf in module._parameters else module._buffers
            members[leaf] = tensors[first]  # type: ignore[assignment]
