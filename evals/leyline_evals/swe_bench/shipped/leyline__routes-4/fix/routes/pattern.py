"""Patterns: paths whose parts may be parameters, `/users/<name>/posts`."""

from urllib.parse import unquote

from routes.errors import BadPattern


class Pattern:
    """A pattern, taken apart."""

    def __init__(self, text):
        if not text.startswith("/"):
            raise BadPattern(f"a pattern starts with a slash, not {text!r}")
        self.text = text
        self.parts = split(text)
        names = [part[1:-1] for part in self.parts if is_parameter(part)]
        if len(set(names)) < len(names) or "" in names:
            raise BadPattern(f"{text!r} names a parameter twice, or not at all")

    @property
    def rank(self):
        """Sorts patterns whose fixed parts come earlier to the front."""
        return [is_parameter(part) for part in self.parts]

    def match(self, path):
        """The parameters of a path that fits, else None."""
        parts = split(path)
        if len(parts) != len(self.parts):
            return None
        found = {}
        for wanted, part in zip(self.parts, parts):
            if is_parameter(wanted):
                found[wanted[1:-1]] = unquote(part)
            elif wanted != unquote(part):
                return None
        return found


def split(path):
    """The parts between slashes; a slash at the end changes nothing."""
    return [part for part in path.split("/") if part]


def is_parameter(part):
    """Whether a part stands for any text."""
    return part.startswith("<") and part.endswith(">")
