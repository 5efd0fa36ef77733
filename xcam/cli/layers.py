"""The layers of a net that methods can read, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xcam.cli.printing import print_table

if TYPE_CHECKING:
    from torch import Tensor

    from xcam.models import Normalized

__all__ = ["print_layers"]


def print_layers(net: Normalized, image: Tensor) -> None:
    """Print the layers that give a map on the way to the scores, in the order of the net.

    Args:
        net: The classifier.
        image: (1, C, H, W), such as it takes.

    Raises:
        LayerError: No layer gives a map.
    """
    from xcam.engine.layers import find_default_layer
    from xcam.engine.search import search_first_image

    default = find_default_layer(net, image).name
    found = {layer.name: layer for layer in search_first_image(net, image, ()).ranked}
    names = [name for name, _ in net.named_modules() if name in found]
    rows = []
    for name in names:
        layer = found[name]
        channels = layer.tensor.shape[1 if layer.layout.order == "NCHW" else -1]
        grid = " × ".join(map(str, layer.layout.grid))
        kind = type(layer.call.module).__name__
        rows.append((name, kind, str(channels), grid, "default" if name == default else ""))
    print_table(("layer", "module", "channels", "map", ""), rows)
