"""Scenes from folders: `load` recognises the format and ends in a `Scene`.

See docs/data.md for the formats and what each reader expects.
"""

from lumigraph.datasets.images import ImageFiles, MaskFiles
from lumigraph.datasets.options import LoadOptions
from lumigraph.datasets.registry import FORMATS, load

__all__ = ["FORMATS", "ImageFiles", "LoadOptions", "MaskFiles", "load"]
