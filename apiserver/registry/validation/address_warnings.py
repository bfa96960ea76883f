"""Warnings about addresses and CIDRs that are accepted and yet not written as they should be.

Never refuses anything. Called by the warnings of services.
"""

import ipaddress

_FUTURE = "will be considered invalid in a future Kubernetes release: use"


def ip_form(path: str, value: str) -> list[str]:
    """Leading zeros, IPv4 within IPv6 and IPv6 not in its canonical form."""
    address = _sloppy(value)
    if address is None:
        return []
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if mapped is not None or _strict(value) is None:
        return [f'{path}: non-standard IP address "{value}" {_FUTURE} "{mapped or address}"']
    if address.version == 6 and str(address) != value:
        return [f'{path}: IPv6 address "{value}" should be in RFC 5952 canonical format ("{address}")']
    return []


def cidr_form(path: str, value: str) -> list[str]:
    """Bits behind the prefix, leading zeros and IPv6 not in its canonical form."""
    head, _, length = value.partition("/")
    address = _sloppy(head)
    if address is None or not length.isdecimal() or int(length) > address.max_prefixlen:
        return []
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    network: ipaddress.IPv4Network | ipaddress.IPv6Network = ipaddress.ip_network(f"{address}/{length}", strict=False)
    found: list[str] = []
    if network.network_address != address:
        found.append(
            f'{path}: CIDR value "{value}" is ambiguous in this context '
            f'(should be "{network}" or "{mapped or address}/{address.max_prefixlen}"?)'
        )
    if mapped is not None or _strict(head) is None or length != str(int(length)):
        found.append(f'{path}: non-standard CIDR value "{value}" {_FUTURE} "{network}"')
    if not found and address.version == 6 and str(network) != value:
        found.append(f'{path}: IPv6 CIDR value "{value}" should be in RFC 5952 canonical format ("{network}")')
    return found


def _strict(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        return None


def _sloppy(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address, with leading zeros in the parts of IPv4 forgiven."""
    if ":" not in value and all(part.isdecimal() for part in value.split(".")):
        value = ".".join(str(int(part)) for part in value.split("."))
    return _strict(value)
