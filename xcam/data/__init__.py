"""Data sets to train and to score on: published ones by name, folders, lists, planted cues."""

from xcam.data.cub_files import cub
from xcam.data.cues import CuePair, cub_cues
from xcam.data.files import ImageFiles, folder
from xcam.data.labels import predict_labels, relabel
from xcam.data.layouts import imagenet_val
from xcam.data.lists import listed
from xcam.data.named import load
from xcam.data.pascal import VOCFiles, voc
from xcam.data.planted.cues import PlantedCues, planted_cues
from xcam.data.splits import Splits
from xcam.data.tiles import Mosaics, mosaics
from xcam.data.wsol_metadata import wsol

__all__ = [
    "CuePair",
    "ImageFiles",
    "Mosaics",
    "PlantedCues",
    "Splits",
    "VOCFiles",
    "cub",
    "cub_cues",
    "folder",
    "imagenet_val",
    "listed",
    "load",
    "mosaics",
    "planted_cues",
    "predict_labels",
    "relabel",
    "voc",
    "wsol",
]
