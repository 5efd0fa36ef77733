"""Whether a state dict is that of a model, key by key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

__all__ = ["misfit"]


def misfit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """What keeps a state dict from being loaded, in words; None if nothing does.

    Floating-point types may differ, others not.

    Args:
        wanted: The model's own state dict.
        found: The one to load.

    Returns:
        Such as `"they lack 'fc.bias' (1 such)"`; the first three names of each kind of fault.
    """
    faults = []
    if absent := wanted.keys() - found.keys():
        faults.append(f"lack {_some(absent)}")
    if foreign := found.keys() - wanted.keys():
        faults.append(f"have, beyond the model, {_some(foreign)}")
    both = wanted.keys() & found.keys()
    changed = {name for name in both if _form(wanted[name]) != _form(found[name])}
    if changed:
        forms = f"{_form(found[min(changed)])} instead of {_form(wanted[min(changed)])}"
        faults.append(f"have another shape in {_some(changed)}, the first {forms}")
    return f"they {'; '.join(faults)}" if faults else None


def _form(tensor: Tensor) -> str:
    shape = str(tuple(tensor.shape))
    return shape if tensor.is_floating_point() else f"{shape} {str(tensor.dtype)[6:]}"


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = ", …" if len(listed) > 3 else ""
    return f"{', '.join(map(repr, listed[:3]))}{more} ({len(listed)} such)"
