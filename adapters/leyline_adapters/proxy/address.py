"""Addresses: whether one leads to a socket of this machine."""

from __future__ import annotations

import socket

__all__ = ["leads_to"]

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # Whoever connects to "all" gets to itself.


def leads_to(bound: socket.socket, host: str, port: int) -> bool:
    """Whether connections to an address reach a socket; False where no name server tells.

    Args:
        bound: is bound to an address, or to all of this machine's.
        host: the address, or a name, which is looked up where the port is the socket's.
        port: its port.
    """
    listening, its_port = bound.getsockname()[:2]
    if port != its_port:
        return False
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return False
    reached = [(family, _LOOPBACK.get(str(to[0]), str(to[0]))) for family, *_, to in found]
    if listening not in _LOOPBACK:
        return any(address == listening for _, address in reached)
    # A socket on all IPv6 addresses has the IPv4 ones, too.
    near = [(f, address) for f, address in reached if listening == "::" or f == bound.family]
    return any(_is_here(family, address) for family, address in near)


def _is_here(family: socket.AddressFamily, address: str) -> bool:
    """Whether an address is one of this machine's: no other can be bound."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
