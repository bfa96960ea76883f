"""Where `pods/proxy`, `services/proxy` and `nodes/proxy` lead.

Owns: reading `name`, `name:port` and `scheme:name:port`, and the choice of an address from the objects, with the
original's errors. Never connects. Called by `streams.proxy`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from machinery.errors import BadRequest, NotFound, ServiceUnavailable

Obj = Mapping[str, Any]
T = TypeVar("T")
Choose = Callable[[Sequence[T]], T]


class Name(NamedTuple):
    """The name in a proxy's path."""

    scheme: str  # http or https
    name: str
    port: str  # number, name, or ""


class Backend(NamedTuple):
    """What to connect to; an empty port is the scheme's own."""

    scheme: str
    host: str
    port: str

    @property
    def address(self) -> tuple[str, int]:
        """Raises ServiceUnavailable for a port that is no number."""
        if not self.port:
            return self.host, 443 if self.scheme == "https" else 80
        if not (self.port.isascii() and self.port.isdigit() and len(self.port) < 6 and 0 < int(self.port) < 65536):
            raise unreachable(f"dial tcp: lookup tcp/{self.port}: unknown port")
        return self.host, int(self.port)


def unreachable(why: str) -> ServiceUnavailable:
    return ServiceUnavailable(f"error trying to reach service: {why}")


def parse_name(text: str, kind: str) -> Name:
    """Raises BadRequest."""
    match text.split(":"):
        case [name]:
            found = Name("http", name, "")
        case [name, port]:
            found = Name("http", name, port)
        case [scheme, name, port] if scheme in ("", "http", "https"):
            found = Name(scheme or "http", name, port)
        case _:
            found = Name("", "", "")
    if not found.name:
        raise BadRequest(f'invalid {kind} request "{text}"')
    return found


def plan_pod(name: Name, pod: Obj) -> Backend:
    """A pod's address; without a port, the first that a container declares. Raises BadRequest."""
    ips = [entry.get("ip", "") for entry in (pod.get("status") or {}).get("podIPs") or ()]
    host = (pod.get("status") or {}).get("podIP") or next(iter(ips), "")
    if not _allowed(host):
        raise BadRequest("address not allowed")
    port = name.port
    if not port:
        declared = (
            entry.get("containerPort")
            for container in (pod.get("spec") or {}).get("containers") or ()
            for entry in container.get("ports") or ()
        )
        port = str(next(declared, ""))
    return Backend(name.scheme, host, port)


def plan_node(name: Name, kubelet: str) -> Backend:
    """Another port of the machine whose kubelet is at an address. Raises BadRequest."""
    host = kubelet.rpartition(":")[0].strip("[]")
    if not _allowed(host):
        raise BadRequest("address not allowed")
    return Backend(name.scheme, host, name.port)


def plan_service(name: Name, text: str, service: Obj, slices: Iterable[Obj], choose: Choose[Backend]) -> Backend:
    """One ready endpoint of a service. Raises ServiceUnavailable or NotFound."""
    wanted = name.port
    if wanted.isascii() and wanted.isdigit():
        ports = (service.get("spec") or {}).get("ports") or ()
        found = next((port for port in ports if str(port.get("port")) == str(int(wanted))), None)
        if found is None:
            raise ServiceUnavailable(f'no service port {int(wanted)} found for service "{name.name}"')
        wanted = found.get("name") or ""
    known = list(slices)
    if not known:  # no controller has looked at the service yet
        raise NotFound.of("services", name.name)
    backends = [
        Backend(name.scheme, address, str(port["port"]))
        for each in known
        for port in each.get("ports") or ()
        if (port.get("name") or "") == wanted and port.get("port")
        for endpoint in each.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready", True)
        for address in endpoint.get("addresses") or ()
        if _allowed(address)
    ]
    if not backends:
        raise ServiceUnavailable(f'no endpoints available for service "{text}"')
    return choose(backends)


def _allowed(address: str) -> bool:
    """Addresses that could lead back into the server's own host are not for clients to choose."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified)


def sub_path(raw_path: bytes) -> str:
    """What follows `/proxy` in a request's path, still quoted; "" differs from "/"."""
    segments = raw_path.decode("latin-1").split("/")
    # /api/v1/namespaces/<ns>/<resource>/<name>/proxy… or /api/v1/nodes/<name>/proxy…
    count = 8 if segments[3:4] == ["namespaces"] else 6
    rest = segments[count:]
    return "/" + "/".join(rest) if rest else ""


def rewrite_location(location: str, hosts: Iterable[str], prefix: str) -> str:
    """A redirect of the backend, so that it leads through the proxy again."""
    from urllib.parse import urlsplit, urlunsplit

    try:
        parts = urlsplit(location)
    except ValueError:
        return location
    if (parts.netloc and parts.netloc not in hosts) or not parts.path.startswith("/"):
        return location
    if parts.path.startswith(prefix):
        return urlunsplit(("", "", parts.path, parts.query, parts.fragment))
    return urlunsplit(("", "", prefix + parts.path, parts.query, parts.fragment))
