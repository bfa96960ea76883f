"""Links, addresses and routes by raw rtnetlink: no external command, no dependency.

Owns the wire format of the few messages nodes need (IPv4). A `Netlink` talks to the network namespace of the thread
that created it, also when later used from another one. Blocking, but every call is one kernel round trip (tens of µs).
Called by the machine builder, the runtime's pod network and the command line.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Self

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR = 20
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH = 28
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _DUMP, _REPLACE, _EXCL, _CREATE = 0x1, 0x4, 0x300, 0x100, 0x200, 0x400
_UP = 0x1
_UNIVERSE, _LINK = 0, 253  # route scopes
_STATIC, _UNICAST, _UNREACHABLE = 4, 1, 7


def _attr(kind: int, value: bytes | str | int) -> bytes:
    if isinstance(value, str):
        value = value.encode() + b"\0"
    elif isinstance(value, int):
        value = struct.pack("=I", value)
    size = len(value) + 4
    return struct.pack("=HH", size, kind) + value + b"\0" * (-size % 4)


def _attributes(data: bytes, offset: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while offset + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, offset)
        if size < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + size]
        offset += (size + 3) & ~3
    return found


def _link(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BxHiII", 0, 0, index, flags, change)


class Netlink:
    """One rtnetlink socket. Use as a context manager, or `close()` it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _request(self, kind: int, flags: int, body: bytes, what: str, subject: str) -> list[bytes]:
        self._sequence += 1
        header = struct.pack("=IHHII", 16 + len(body), kind, flags | _REQUEST | _ACK, self._sequence, 0)
        self._socket.send(header + body)
        replies: list[bytes] = []
        while True:
            data = self._socket.recv(1 << 18)
            offset = 0
            while offset < len(data):
                size, answer, _, sequence, _ = struct.unpack_from("=IHHII", data, offset)
                if sequence == self._sequence:
                    if answer in (_NLMSG_ERROR, _NLMSG_DONE):
                        code = -struct.unpack_from("=i", data, offset + 16)[0] if answer == _NLMSG_ERROR else 0
                        if code:
                            raise OSError(code, f"{what}: {os.strerror(code)}", subject)
                        return replies
                    replies.append(data[offset + 16 : offset + size])
                offset += (size + 3) & ~3

    # links

    def index(self, name: str) -> int:
        """Interface index of `name`; OSError(ENODEV) when there is none."""
        reply = self._request(RTM_GETLINK, 0, _link() + _attr(3, name), "look up link", name)
        return int(struct.unpack_from("=i", reply[0], 4)[0])

    def exists(self, name: str) -> bool:
        """Whether a link of this name exists."""
        try:
            self.index(name)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return False
        return True

    def links(self) -> dict[str, int]:
        """Every link's name and index."""
        found = {}
        for reply in self._request(RTM_GETLINK, _DUMP, _link(), "list links", ""):
            name = _attributes(reply, 16).get(3)
            if name:
                found[name.rstrip(b"\0").decode()] = int(struct.unpack_from("=i", reply, 4)[0])
        return found

    def is_up(self, name: str) -> bool:
        """Whether the link is administratively up."""
        reply = self._request(RTM_GETLINK, 0, _link() + _attr(3, name), "look up link", name)
        return bool(struct.unpack_from("=I", reply[0], 8)[0] & _UP)

    def statistics(self, name: str) -> tuple[int, int, int, int]:
        """(rx bytes, rx errors, tx bytes, tx errors) of a link."""
        reply = self._request(RTM_GETLINK, 0, _link() + _attr(3, name), "look up link", name)
        raw = _attributes(reply[0], 16).get(23, b"")  # IFLA_STATS64
        if len(raw) < 48:
            return 0, 0, 0, 0
        _, _, rx_bytes, tx_bytes, rx_errors, tx_errors = struct.unpack_from("=6Q", raw)
        return rx_bytes, rx_errors, tx_bytes, tx_errors

    def add_veth(
        self,
        name: str,
        peer: str,
        *,
        peer_ns: int | None = None,
        master: int | None = None,
        up: bool = True,
        mtu: int | None = None,
        mac: bytes | None = None,
        peer_mac: bytes | None = None,
    ) -> None:
        """A veth pair; `peer_ns` is an open file descriptor of the namespace in which the peer appears."""
        flags = _UP if up else 0
        other = _link() + (_attr(1, peer_mac) if peer_mac else b"") + _attr(3, peer)
        if mtu is not None:
            other += _attr(4, mtu)
        if peer_ns is not None:
            other += _attr(28, peer_ns)
        body = _link(0, flags, flags) + (_attr(1, mac) if mac else b"") + _attr(3, name)
        if master is not None:
            body += _attr(10, master)
        if mtu is not None:
            body += _attr(4, mtu)
        body += _attr(18, _attr(1, b"veth") + _attr(2, _attr(1, other)))
        self._request(RTM_NEWLINK, _CREATE | _EXCL, body, "add veth", name)

    def add_bridge(self, name: str, *, up: bool = True) -> None:
        """A bridge."""
        flags = _UP if up else 0
        body = _link(0, flags, flags) + _attr(3, name) + _attr(18, _attr(1, b"bridge"))
        self._request(RTM_NEWLINK, _CREATE | _EXCL, body, "add bridge", name)

    def set_up(self, name: str, up: bool = True) -> None:
        """Bring a link up or down; its addresses and the routes of others through it are kept by the kernel's rules."""
        self._request(RTM_NEWLINK, 0, _link(self.index(name), _UP if up else 0, _UP), "set link", name)

    def set_master(self, name: str, master: str | None) -> None:
        """Enslave a link to a bridge, or release it."""
        index = self.index(master) if master else 0
        self._request(RTM_NEWLINK, 0, _link(self.index(name)) + _attr(10, index), "set master", name)

    def delete_link(self, name: str, *, missing_ok: bool = False) -> None:
        """Delete a link (and the other end of a veth pair)."""
        try:
            self._request(RTM_DELLINK, 0, _link(self.index(name)), "delete link", name)
        except OSError as error:
            if not (missing_ok and error.errno == errno.ENODEV):
                raise

    # addresses, routes, neighbours

    def add_address(self, name: str, address: str, prefix: int) -> None:
        """Add (or confirm) an IPv4 address."""
        self._address(RTM_NEWADDR, _CREATE | _REPLACE, name, address, prefix, "add address")

    def _address(self, kind: int, flags: int, name: str, address: str, prefix: int, what: str) -> None:
        raw = socket.inet_aton(address)
        head = struct.pack("=BBBBi", socket.AF_INET, prefix, 0, 0, self.index(name))
        self._request(kind, flags, head + _attr(2, raw) + _attr(1, raw), what, f"{address}/{prefix} dev {name}")

    def add_route(
        self,
        destination: str,
        *,
        via: str | None = None,
        dev: str | None = None,
        source: str | None = None,
        unreachable: bool = False,
        replace: bool = True,
    ) -> None:
        """Add a route to `a.b.c.d/len` ("default" allowed). With `replace` an equal destination is overwritten."""
        body = self._route(destination, via, dev, source, unreachable)
        flags = _CREATE | (_REPLACE if replace else _EXCL)
        self._request(RTM_NEWROUTE, flags, body, "add route", destination)

    def delete_route(
        self, destination: str, *, via: str | None = None, dev: str | None = None, missing_ok: bool = False
    ) -> None:
        """Delete the route to `a.b.c.d/len`."""
        body = bytearray(self._route(destination, via, dev, None, False))
        body[5], body[6], body[7] = 0, 255, 0  # any protocol, RT_SCOPE_NOWHERE, any type
        try:
            self._request(RTM_DELROUTE, 0, bytes(body), "delete route", destination)
        except OSError as error:
            if not (missing_ok and error.errno == errno.ESRCH):
                raise

    def _route(
        self, destination: str, via: str | None, dev: str | None, source: str | None, unreachable: bool
    ) -> bytes:
        network, _, length = ("0.0.0.0", "/", "0") if destination == "default" else destination.partition("/")
        prefix = int(length or "32")
        scope = _UNIVERSE if via or unreachable else _LINK
        kind = _UNREACHABLE if unreachable else _UNICAST
        body = struct.pack("=BBBBBBBBI", socket.AF_INET, prefix, 0, 0, 254, _STATIC, scope, kind, 0)
        if prefix:
            body += _attr(1, socket.inet_aton(network))
        if via:
            body += _attr(5, socket.inet_aton(via))
        if source:
            body += _attr(7, socket.inet_aton(source))
        if dev:
            body += _attr(4, self.index(dev))
        return body

    def routes(self) -> list[tuple[str, str | None, int | None]]:
        """The main table's unicast IPv4 routes as (destination/len, gateway, interface index)."""
        query = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        found: list[tuple[str, str | None, int | None]] = []
        for reply in self._request(RTM_GETROUTE, _DUMP, query, "list routes", ""):
            attributes = _attributes(reply, 12)
            table = struct.unpack("=I", attributes[15])[0] if 15 in attributes else reply[4]
            if table != 254 or reply[7] != _UNICAST:
                continue
            network = socket.inet_ntoa(attributes[1]) if 1 in attributes else "0.0.0.0"
            gateway = socket.inet_ntoa(attributes[5]) if 5 in attributes else None
            index = struct.unpack("=I", attributes[4])[0] if 4 in attributes else None
            found.append((f"{network}/{reply[1]}", gateway, index))
        return found

    def add_neighbour(self, name: str, address: str, mac: bytes) -> None:
        """A permanent neighbour entry."""
        head = struct.pack("=BxHiHBB", socket.AF_INET, 0, self.index(name), 0x80, 0, 0)
        body = head + _attr(1, socket.inet_aton(address)) + _attr(2, mac)
        self._request(RTM_NEWNEIGH, _CREATE | _REPLACE, body, "add neighbour", f"{address} dev {name}")
