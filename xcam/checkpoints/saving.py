"""`save`: a net as a file."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from xcam.checkpoints.record import KEY, make_header
from xcam.checkpoints.tensors import copy_to_own_memory, find_ties, get_state
from xcam.engine import unwrap
from xcam.runs import files

__all__ = ["save"]


def save(net: nn.Module, path: str | Path) -> None:
    """Write a net as a safetensors file, whole or not at all.

    The file holds each parameter and persistent buffer bit for bit, and once if it has several
    names. Its JSON header, `xcam.net` in the metadata, holds

    * `format`, and `versions` of xcam, torch and torchvision;
    * `method`: the name and parameters of the method that the net carries, null for a plain
      classifier; `fitted`: whether the method's head has been trained; and `image_shape`, (C, H, W)
      of the images for which it was attached, null where that is not known;
    * `backbone`: the name and arguments from which `xcam.models.load` builds the net's structure,
      null where nothing does: the net is your own, or its modules were changed;
    * `classes`: their number and names, as far as they are known;
    * `normalization`: mean, standard deviation and input size of each `Normalized` in the net;
    * `dtype` of the parameters, `tied` names, and a `checksum` (CRC-32) of all else.

    Args:
        net: What `xcam.fit` or `xcam.models.load` gave, or any module; also inside `DataParallel`,
            `DistributedDataParallel` or a compiled wrapper. Its tensors may be on any device.
        path: The file; one that exists is replaced.

    Raises:
        TypeError: Not a module, or one with state or a method's parameter that no file can hold.
        ValueError: A parameter without values: lazy, or on the meta device.
        OSError: The folder is missing, full, or cannot be written to; nothing is left behind.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"net must be a torch.nn.Module, got {type(net).__name__}")
    net = unwrap(net)
    with files.writing(path) as partial:
        tensors = get_state(net)
        tied = find_ties(tensors)
        header = {**make_header(net, tensors), "tied": tied}
        once = copy_to_own_memory(
            {name: tensor for name, tensor in tensors.items() if name not in tied}
        )
        files.write_tensors(partial, once, KEY, header)
