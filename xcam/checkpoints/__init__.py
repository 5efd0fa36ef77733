"""Nets as files: safetensors with a JSON header from which the whole net is built again."""

from xcam.checkpoints.loading import load, load_net
from xcam.checkpoints.published.abn import import_abn
from xcam.checkpoints.published.calm import import_calm
from xcam.checkpoints.published.castream import import_castream
from xcam.checkpoints.published.lcam import import_lcam
from xcam.checkpoints.published.lficam import import_lficam
from xcam.checkpoints.saving import save

__all__ = [
    "import_abn",
    "import_calm",
    "import_castream",
    "import_lcam",
    "import_lficam",
    "load",
    "load_net",
    "save",
]
