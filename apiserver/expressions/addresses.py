"""ip(…), cidr(…) and url(…), by the grammar that Go's parsers accept."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from apiserver.expressions.numbers import Row
from apiserver.expressions.opaque import wrap

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def address(text: str) -> Address:
    """Raises ValueError with upstream's text."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"IP Address {text!r} parse error during conversion from string") from None
    if "%" in text:
        raise ValueError(f"IP address {text!r} with zone value is not allowed")
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        raise ValueError(f"IPv4-mapped IPv6 address {text!r} is not allowed")
    return found


def interface(text: str) -> tuple[Address, Network]:
    """The address and the network of a CIDR. Raises ValueError."""
    host, slash, bits = text.partition("/")
    if not slash or not bits.isascii() or not bits.isdigit():
        raise ValueError(f"network address parse error during conversion from string: {text!r}")
    found = address(host)
    return found, ipaddress.ip_network(f"{found}/{bits}", strict=False)


def _succeeds(parse: Any) -> Any:
    def test(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return test


def _ip(found: Address) -> Any:
    return wrap("IP", str(found))


def _of(value: Any) -> Address:
    return ipaddress.ip_address(value.text)


def _cidr(text: str) -> Any:
    found, network = interface(text)
    return wrap("CIDR", f"{found}/{network.prefixlen}")


def _network(value: Any) -> Network:
    return interface(value.text)[1]


def _contains(outer: Any, inner: str) -> bool:
    network, (_, other) = _network(outer), interface(inner)
    if network.version != other.version:
        return False
    return network.prefixlen <= other.prefixlen and other.network_address in network


def _holds(value: Any, found: Address) -> bool:
    network = _network(value)
    return network.version == found.version and found in network


def _global(value: Any) -> bool:
    found = _of(value)
    apart = found.is_loopback or found.is_link_local or found.is_multicast or found.is_unspecified
    return not apart and str(found) != "255.255.255.255"


def _link_local_multicast(value: Any) -> bool:
    found = _of(value)
    if isinstance(found, ipaddress.IPv4Address):
        return found in ipaddress.ip_network("224.0.0.0/24")
    return found.is_multicast and found.packed[1] & 0x0F == 0x02


def split_url(text: str) -> Any:
    """A URL as Go's ParseRequestURI accepts it: absolute, or a path. Raises ValueError."""
    if not text or any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise ValueError(f"URL parse error during conversion from string: parse {text!r}: invalid URI for request")
    parts = urlsplit(text)
    _ = parts.port  # raises for what is no number
    if not parts.scheme and not text.startswith("/"):
        raise ValueError(f"URL parse error during conversion from string: parse {text!r}: invalid URI for request")
    if " " in parts.netloc:
        raise ValueError(f"URL parse error during conversion from string: parse {text!r}: invalid character in host")
    return parts


def _url(text: str) -> Any:
    split_url(text)
    return wrap("URL", text)


def _hostname(value: Any) -> str:
    host = str(urlsplit(value.text).netloc).rpartition("@")[2]
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _port(value: Any) -> str:
    port = urlsplit(value.text).port
    return "" if port is None else str(port)


ROWS: tuple[Row, ...] = (
    ("isIP", False, "str", "bool", _succeeds(address)),
    ("ip", False, "str", "IP", lambda text: _ip(address(text))),
    ("ip.isCanonical", False, "str", "bool", lambda text: str(address(text)) == text),
    ("family", True, "IP", "int", lambda value: _of(value).version),
    ("isUnspecified", True, "IP", "bool", lambda value: _of(value).is_unspecified),
    ("isLoopback", True, "IP", "bool", lambda value: _of(value).is_loopback),
    ("isLinkLocalMulticast", True, "IP", "bool", _link_local_multicast),
    ("isLinkLocalUnicast", True, "IP", "bool", lambda value: _of(value).is_link_local),
    ("isGlobalUnicast", True, "IP", "bool", _global),
    ("isCIDR", False, "str", "bool", _succeeds(interface)),
    ("cidr", False, "str", "CIDR", _cidr),
    ("containsIP", True, "CIDR str", "bool", lambda value, text: _holds(value, address(text))),
    ("containsIP", True, "CIDR IP", "bool", lambda value, found: _holds(value, _of(found))),
    ("containsCIDR", True, "CIDR str", "bool", _contains),
    ("containsCIDR", True, "CIDR CIDR", "bool", lambda value, other: _contains(value, other.text)),
    ("ip", True, "CIDR", "IP", lambda value: _ip(interface(value.text)[0])),
    ("masked", True, "CIDR", "CIDR", lambda value: wrap("CIDR", str(_network(value)))),
    ("prefixLength", True, "CIDR", "int", lambda value: _network(value).prefixlen),
    ("isURL", False, "str", "bool", _succeeds(split_url)),
    ("url", False, "str", "URL", _url),
    ("getScheme", True, "URL", "str", lambda value: urlsplit(value.text).scheme),
    ("getHost", True, "URL", "str", lambda value: urlsplit(value.text).netloc.rpartition("@")[2]),
    ("getHostname", True, "URL", "str", _hostname),
    ("getPort", True, "URL", "str", _port),
    ("getEscapedPath", True, "URL", "str", lambda value: quote(urlsplit(value.text).path, safe="/%:@!$&'()*+,;=~-._")),
    (
        "getQuery",
        True,
        "URL",
        "map",
        lambda value: parse_qs(urlsplit(value.text).query, keep_blank_values=True),
    ),
)
