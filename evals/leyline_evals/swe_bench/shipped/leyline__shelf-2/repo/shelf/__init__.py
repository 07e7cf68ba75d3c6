"""A cache bounded by size."""

from shelf.cache import Shelf
from shelf.size import size_of

__all__ = ["Shelf", "size_of"]
