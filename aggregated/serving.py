"""The flags of an aggregated API server's process, and its door made from them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from aggregated.access import Access, ApiReviews, Authorities
from aggregated.door import Door, Handler, tls_context
from client.client import Client, add_client_flags
from machinery import component
from machinery.clock import Clock
from machinery.tls import KeyPair


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """A component's flags, a client's and a server's."""
    made = component.parser(name, description)
    add_client_flags(made)
    made.add_argument("--listen", required=True, metavar="HOST:PORT", help="HTTPS address")
    made.add_argument("--tls-cert", type=Path, required=True, help="serving certificate")
    made.add_argument("--tls-key", type=Path, required=True, help="its key")
    made.add_argument("--requestheader-client-ca", type=Path, required=True, help="CA of who may speak for users")
    made.add_argument("--requestheader-allowed-names", default="front-proxy-client", metavar="NAME,…")
    return made


def refused(name: str, args: argparse.Namespace) -> bool:
    """Whether flags are missing, having told so."""
    if args.ca is not None and args.listen.rpartition(":")[2].isdigit():
        return False
    print(f"{name}: --ca, --cert, --key and --listen HOST:PORT are required", file=sys.stderr)
    return True


def door(args: argparse.Namespace, client: Client, clock: Clock, handlers: Callable[[Access], Handler]) -> Door:
    """The door of the flags. Raises ValueError when the authorities cannot be told apart."""
    names = tuple(name for name in args.requestheader_allowed_names.split(",") if name)
    authorities = Authorities(args.ca.read_text(), args.requestheader_client_ca.read_text(), names)
    authorities.front_proxy_subjects  # noqa: B018  wrong ones must end the process, not each request
    tls = tls_context(KeyPair(args.ca, args.tls_cert, args.tls_key), (authorities.client, authorities.front_proxy))
    return Door(handlers(Access(authorities, ApiReviews(client), clock)), tls)


async def start(made: Door, listen: str) -> None:
    """Listen at HOST:PORT. Raises OSError."""
    host, _, port = listen.rpartition(":")
    await made.start(host.strip("[]"), int(port))
