"""A small router of paths."""

from routes.errors import BadPattern, NoRoute
from routes.router import Match, Router

__all__ = ["BadPattern", "Match", "NoRoute", "Router"]
