"""Whose request it is. Tenants share no session and no KV."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import Depends, Header

__all__ = ["Tenant", "tenant_of"]


def tenant_of(authorization: Annotated[str | None, Header()] = None) -> str:
    """A digest of the bearer token; "" without one. Nothing in a body can change it."""
    token = (authorization or "").strip()
    if token[:7].lower() == "bearer ":
        token = token[7:].strip()
    if not token or token.lower() == "bearer":
        return ""
    return hashlib.blake2b(token.encode(), digest_size=16).hexdigest()


Tenant = Annotated[str, Depends(tenant_of)]
