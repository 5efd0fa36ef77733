"""Data sets to score on: planted cues with exact truth, folders and lists of images."""

from xcam.data.files import ImageFiles, folder
from xcam.data.imagenet import imagenet_val
from xcam.data.lists import listed
from xcam.data.planted import PlantedCues, planted_cues

__all__ = ["ImageFiles", "PlantedCues", "folder", "imagenet_val", "listed", "planted_cues"]
