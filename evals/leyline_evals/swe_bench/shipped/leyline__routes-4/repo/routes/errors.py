"""What can be wrong."""


class BadPattern(ValueError):
    """A pattern that no router takes."""


class NoRoute(LookupError):
    """A path that no route answers."""
