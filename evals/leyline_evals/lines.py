"""A file of lines, a header and what was done so far, that a kill or a full disk leaves whole."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from leyline_agent.errors import LeylineError

__all__ = ["Lines"]

H = TypeVar("H", bound=BaseModel)
M = TypeVar("M", bound=BaseModel)


class Lines(NamedTuple):
    """Reads and writes such a file. A header is written whole, the others without their defaults.

    Args:
        path: the file.
        what: it is of, for errors.
        error: what is raised.
        again: what to do when it cannot be used.
    """

    path: Path
    what: str
    error: type[LeylineError]
    again: str

    def read(self, header: type[H], line: type[M]) -> tuple[H, list[M]]:
        """The header and the lines; a last line cut off by a kill is left out.

        Raises:
            LeylineError: the file cannot be read, or is of something else.
        """
        try:
            texts = self.path.read_bytes().split(b"\n")
        except OSError as error:
            raise self.error(f"{self.path}: cannot be read ({error}); {self.again}") from error
        first = self._parsed(header, texts[0], 1)
        # Behind the last line break is nothing, or half a line, which may end within a character.
        whole = enumerate(texts[1:-1], start=2)
        return first, [self._parsed(line, text, number) for number, text in whole]

    def begin(self, header: BaseModel, lines: Iterable[BaseModel]) -> None:
        """Write the file anew: until all of it is on disk the old one stands.

        Raises:
            LeylineError: it cannot be written.
        """
        texts = [header.model_dump_json(), *map(_text, lines)]
        scratch = self.path.with_name(f"{self.path.name}.new")
        try:
            self._write(scratch, "w", texts)
            scratch.replace(self.path)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise self._unwritten(error) from error

    def add(self, lines: Iterable[BaseModel]) -> None:
        """Add lines; on disk before this returns.

        Raises:
            LeylineError: the file cannot be written.
        """
        try:
            self._write(self.path, "a", map(_text, lines))
        except OSError as error:
            raise self._unwritten(error) from error

    def _write(self, path: Path, how: Literal["w", "a"], texts: Iterable[str]) -> None:
        with path.open(how, encoding="utf-8") as file:
            file.writelines(f"{text}\n" for text in texts)
            file.flush()
            os.fsync(file.fileno())

    def _unwritten(self, error: OSError) -> LeylineError:
        return self.error(
            f"{self.path}: cannot be written: {error.strerror}; name another file with --json"
        )

    def _parsed(self, kind: type[M], text: bytes, number: int) -> M:
        try:
            return kind.model_validate_json(text)
        except ValidationError as error:
            raise self.error(
                f"{self.path}, line {number}: not of {self.what} ({error.error_count()} problems); "
                f"{self.again}"
            ) from error


def _text(line: BaseModel) -> str:
    return line.model_dump_json(exclude_defaults=True)
