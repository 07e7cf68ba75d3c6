"""Calls: what a request's head says, before its body is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from leyline_adapters.proxy.upstream import Headers, forwarded
from leyline_agent.errors import LeylineError

__all__ = ["Call", "Scope", "tenant_of", "told"]

Scope = MutableMapping[str, Any]

_SESSION = b"leyline-session"
_RECEIPT = b"leyline-receipt"

_CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"})
_OURS = frozenset({_SESSION, _RECEIPT})
_SHORT = frozenset({"/chat/completions", "/messages"})
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Call:
    """A request's head.

    Attributes:
        method: in capitals.
        path: with its percent signs, without the part that names a session.
        query: likewise, without the question mark.
        headers: the lines that go upstream.
        tenant: a digest of its credentials; "" without any.
        name: the session it names, by header or path; "" when it names none.
        wants_receipt: whether the client asks for the receipt in the answer.
    """

    method: str
    path: str
    query: str
    headers: Headers
    tenant: str
    name: str
    wants_receipt: bool

    @classmethod
    def of(cls, scope: Scope) -> Call:
        """The head of an ASGI request.

        Raises:
            LeylineError: it names a session in a way that is none.
        """
        lines = [(name.lower(), value) for name, value in scope["headers"]]
        given = dict(lines)
        raw = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        path, name = _split(raw)
        name = given.get(_SESSION, name.encode()).decode("utf-8", "replace").strip()
        return cls(
            method=scope["method"],
            path=path,
            query=scope["query_string"].decode("latin-1"),
            headers=forwarded(lines, without=_OURS),
            tenant=tenant_of(lines),
            name=_checked(name),
            wants_receipt=given.get(_RECEIPT, b"").strip().lower() in (b"1", b"true", b"yes"),
        )


def tenant_of(headers: Headers) -> str:
    """A digest of a request's keys, by whatever header; requests without any have "" in common."""
    keys = {_key(value) for name, value in headers if name in _CREDENTIALS} - {b""}
    if not keys:
        return ""
    told = b"\n".join(sorted(keys))
    return hashlib.blake2b(told, digest_size=16, person=b"leyline-proxy").hexdigest()


def _key(credential: bytes) -> bytes:
    scheme, _, rest = credential.strip().partition(b" ")
    return rest.strip() if scheme.lower() == b"bearer" else credential.strip()


def _split(path: str) -> tuple[str, str]:
    """A path without its `/s/{name}` in front, and the name; a base URL may lack its `/v1`."""
    name = ""
    if path.startswith("/s/"):
        name, _, rest = path[3:].partition("/")
        path = f"/{rest}"
    return f"/v1{path}" if path in _SHORT else path, unquote(name)


def _checked(name: str) -> str:
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise LeylineError(
            f"a session's name has at most {_LONGEST_NAME} printable characters; this one has "
            f"{len(name)}"
        )
    return name


def told(values: Mapping[str, object]) -> Headers:
    """Header lines for a client: one line of ASCII each, names in lower case; "" is left out."""
    return [
        (name.lower().encode(), _line(str(value))) for name, value in values.items() if value != ""
    ]


def _line(text: str) -> bytes:
    one_line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return one_line.encode("ascii", "replace")[:500]
