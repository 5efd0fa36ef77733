"""Write the inventories of other libraries for intersphinx, without a network.

Only the names that our pages show are in them. An inventory fetched at each build would make the
build depend on six sites.
"""

from __future__ import annotations

import zlib
from pathlib import Path

# Of each library: where its documentation is, and for each kind of object the names and pages. A
# page that ends with # is continued by the name.
LIBRARIES: dict[str, tuple[str, dict[str, dict[str, str]]]] = {
    "python": (
        "https://docs.python.org/3",
        {
            "class": {
                **dict.fromkeys(("int", "float", "complex"), "library/functions.html#"),
                **dict.fromkeys(("str", "list", "tuple", "range"), "library/stdtypes.html#"),
                **dict.fromkeys(("bool", "type"), "library/functions.html#"),
                **dict.fromkeys(("dict", "set", "frozenset", "bytes"), "library/stdtypes.html#"),
                "pathlib.Path": "library/pathlib.html#",
                "os.PathLike": "library/os.html#",
                **{
                    f"collections.abc.{name}": "library/collections.abc.html#"
                    for name in (
                        "Callable",
                        "Iterable",
                        "Iterator",
                        "Mapping",
                        "Sequence",
                        "Generator",
                    )
                },
            },
            "data": {
                f"typing.{name}": "library/typing.html#"
                for name in ("Annotated", "Any", "ClassVar", "Literal", "Union")
            }
            | {"None": "library/constants.html#"},
            "exception": dict.fromkeys(
                (
                    *("Exception", "IndexError", "KeyError", "OSError", "RuntimeError"),
                    *("TypeError", "ValueError", "Warning", "ImportError", "FileNotFoundError"),
                ),
                "library/exceptions.html#",
            ),
        },
    ),
    "torch": (
        "https://docs.pytorch.org/docs/stable",
        {
            "class": {
                "torch.Tensor": "tensors.html#",
                "torch.device": "tensor_attributes.html#",
                "torch.dtype": "tensor_attributes.html#",
                "torch.Generator": "generated/torch.Generator.html#",
                "torch.nn.Module": "generated/torch.nn.Module.html#",
                "torch.nn.modules.module.Module": "generated/torch.nn.Module.html#torch.nn.Module",
                "torch.utils.data.DataLoader": "data.html#",
                "torch.utils.data.Dataset": "data.html#",
                "torch.optim.Optimizer": "optim.html#",
            }
        },
    ),
    "numpy": (
        "https://numpy.org/doc/stable",
        {"class": {"numpy.ndarray": "reference/generated/numpy.ndarray.html#"}},
    ),
    "pandas": (
        "https://pandas.pydata.org/docs",
        {"class": {"pandas.DataFrame": "reference/api/pandas.DataFrame.html#"}},
    ),
    "matplotlib": (
        "https://matplotlib.org/stable",
        {"class": {"matplotlib.figure.Figure": "api/_as_gen/matplotlib.figure.Figure.html#"}},
    ),
    "pillow": (
        "https://pillow.readthedocs.io/en/stable",
        {"class": {"PIL.Image.Image": "reference/Image.html#"}},
    ),
}


def write_inventories(folder: Path) -> dict[str, tuple[str, str]]:
    """Write the inventories; return what intersphinx is told of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for library, (_, kinds) in LIBRARIES.items():
        lines = [
            f"{name} py:{kind} 1 {page}{'$' if page.endswith('#') else ''} -\n"
            for kind, pages in kinds.items()
            for name, page in pages.items()
        ]
        header = f"# Sphinx inventory version 2\n# Project: {library}\n# Version: \n"
        header += "# The remainder of this file is compressed using zlib.\n"
        content = header.encode() + zlib.compress("".join(lines).encode())
        (folder / f"{library}.inv").write_bytes(content)
    return {
        library: (address, str(folder / f"{library}.inv"))
        for library, (address, _) in LIBRARIES.items()
    }
