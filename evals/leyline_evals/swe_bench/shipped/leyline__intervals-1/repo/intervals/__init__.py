"""Half-open spans of whole numbers."""

from intervals.spans import Span, merge, subtract, total

__all__ = ["Span", "merge", "subtract", "total"]
