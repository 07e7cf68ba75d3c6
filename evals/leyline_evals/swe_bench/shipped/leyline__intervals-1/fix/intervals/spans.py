"""Spans [start, end) and what can be done with lists of them."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Span:
    """The numbers from `start` up to, not with, `end`."""

    start: int
    end: int

    def __post_init__(self):
        if self.end < self.start:
            raise ValueError(f"a span cannot end at {self.end} before it starts at {self.start}")

    def __len__(self):
        return self.end - self.start

    def overlaps(self, other):
        """Whether both hold a number."""
        return self.start < other.end and other.start < self.end


def merge(spans):
    """The same numbers in as few spans as can be, in order."""
    merged = []
    for span in sorted(spans):
        if not len(span):
            continue
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return merged


def subtract(spans, cut):
    """What is left of `spans` without the numbers of `cut`."""
    left = []
    for span in merge(spans):
        if not span.overlaps(cut):
            left.append(span)
            continue
        if span.start < cut.start:
            left.append(Span(span.start, cut.start))
        if cut.end < span.end:
            left.append(Span(cut.end, span.end))
    return left


def total(spans):
    """How many numbers are in any of the spans."""
    return sum(len(span) for span in merge(spans))
