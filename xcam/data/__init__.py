"""Data sets by name to train on, and to score on: planted cues, folders and lists of images."""

from xcam.data.files import ImageFiles, folder
from xcam.data.labels import predicted_labels, relabeled
from xcam.data.layouts import imagenet_val
from xcam.data.lists import listed
from xcam.data.named import load
from xcam.data.planted.cues import PlantedCues, planted_cues
from xcam.data.splits import Splits

__all__ = [
    "ImageFiles",
    "PlantedCues",
    "Splits",
    "folder",
    "imagenet_val",
    "listed",
    "load",
    "planted_cues",
    "predicted_labels",
    "relabeled",
]
