"""Claims on this machine that die with their holder: a cluster's number, a start that is under way."""

from __future__ import annotations

import socket


def hold(what: str) -> socket.socket:
    """Claim something on this machine for as long as the socket is open. Raises OSError when another holds it.

    An abstract socket, because clusters may have different state folders and a claim must die with its holder.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(f"\0nanokube-{what}")
    except OSError:
        claim.close()
        raise
    return claim


def hold_index(index: int) -> socket.socket:
    """Claim a cluster's number: its ports and networks. Raises OSError when another cluster holds it."""
    return hold(str(index))


def is_held(index: int) -> bool:
    """Whether a running cluster has this number."""
    try:
        hold_index(index).close()
    except OSError:
        return True
    return False
