"""Which handler answers a path."""

from collections import namedtuple

from routes.errors import NoRoute
from routes.pattern import Pattern

Match = namedtuple("Match", "handler parameters")


class Router:
    """Routes, each a pattern with its handler."""

    def __init__(self):
        self._routes = []

    def add(self, pattern, handler):
        """Answer what fits the pattern with the handler."""
        self._routes.append((Pattern(pattern), handler))

    def match(self, path):
        """The handler of a path with its parameters; NoRoute when there is none."""
        for pattern, handler in self._routes:
            parameters = pattern.match(path)
            if parameters is not None:
                return Match(handler, parameters)
        raise NoRoute(f"no route for {path!r}")

    def patterns(self):
        """The patterns' texts, in the order in which they are tried."""
        return [pattern.text for pattern, _ in self._routes]
