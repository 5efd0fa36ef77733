"""The verb `roar`: methods scored by what new nets learn from images without what they mark."""

from xcam._roar.verb import roar

__all__ = ["roar"]
