"""One try of a probe or hook: exec, httpGet, tcpSocket, grpc. No thresholds, no timers besides the try's own.

The kubelet is in the machine's network, so pods are reached by their own addresses. Timeouts are real seconds: they
bound real programs. Called by `probes.runner` and `probes.hooks`.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any, NamedTuple

from api.models import core_v1
from kubelet.cri import Cri, CriError

USER_AGENT = "kube-probe/1.36"
MAX_OUTPUT = 10 * 1024
MAX_HEAD = 64 * 1024


class Verdict(NamedTuple):
    """What one try said. `error`: the try itself could not be made, which counts for nothing."""

    ok: bool
    message: str = ""
    error: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """Where the probed container is."""

    container_id: str
    ip: str
    ports: dict[str, int]

    def port(self, wanted: int | str) -> int:
        """A number, or a port's name. Raises ValueError."""
        if isinstance(wanted, int):
            return wanted
        if wanted in self.ports:
            return self.ports[wanted]
        try:
            return int(wanted)
        except ValueError:
            raise ValueError(f"couldn't find port: {wanted!r}") from None


def target_of(container: core_v1.Container, container_id: str, ip: str) -> Target:
    names = {port.name: port.containerPort for port in container.ports or () if port.name}
    return Target(container_id, ip, names)


async def run_exec(cri: Cri, container_id: str, command: list[str], timeout: float) -> Verdict:
    """Run a command in the container; exit code 0 is success."""
    try:
        answer = await cri.exec_sync(container_id, command, max(1, round(timeout)))
    except CriError as error:
        if error.code == "DEADLINE_EXCEEDED":
            return Verdict(False, f'command timed out: "{" ".join(command)}" timed out after {timeout:g}s')
        return Verdict(False, error.message, error=True)
    output = (answer.stdout + answer.stderr)[:MAX_OUTPUT].decode("utf-8", "replace")
    return Verdict(answer.exit_code == 0, output)


async def http_get(action: core_v1.HTTPGetAction, target: Target, timeout: float) -> Verdict:
    """GET; any status from 200 to 399 is success."""
    host = action.host or target.ip
    try:
        port = target.port(action.port)
    except ValueError as error:
        return Verdict(False, str(error), error=True)
    path = action.path or "/"
    path = path if path.startswith("/") else f"/{path}"
    scheme = (action.scheme or "HTTP").lower()
    shown = f"[{host}]" if ":" in host else host
    url = f"{scheme}://{shown}:{port}{path}"
    headers = {"Host": f"{shown}:{port}", "User-Agent": USER_AGENT, "Accept": "*/*", "Connection": "close"}
    headers.update({header.name.title(): header.value for header in action.httpHeaders or ()})
    request = f"GET {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    try:
        async with asyncio.timeout(timeout):
            status = await _exchange(host, port, request.encode(), tls=scheme == "https")
    except TimeoutError:
        why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        return Verdict(False, f'Get "{url}": {why}')
    except OSError as error:
        return Verdict(False, f'Get "{url}": dial tcp {shown}:{port}: {_dial(error)}')
    except ValueError as error:
        return Verdict(False, f'Get "{url}": {error}')
    if 200 <= status < 400:
        return Verdict(True)
    return Verdict(False, f"HTTP probe failed with statuscode: {status}")


async def _exchange(host: str, port: int, request: bytes, *, tls: bool) -> int:
    context = None
    if tls:  # upstream does not verify either: the pod's certificate is the pod's affair
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=MAX_HEAD)
    try:
        writer.write(request)
        await writer.drain()
        line = await reader.readline()
    finally:
        writer.close()
    words = line.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise ValueError("EOF" if not line else f"malformed HTTP response {line[:40]!r}")
    return int(words[1])


def _dial(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connect: connection refused"
    return f"connect: {(error.strerror or str(error)).lower()}"


async def tcp_connect(host: str, port: int, timeout: float) -> Verdict:
    """Open and close a connection."""
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
    except TimeoutError:
        return Verdict(False, f"dial tcp {host}:{port}: i/o timeout")
    except OSError as error:
        return Verdict(False, f"dial tcp {host}:{port}: {_dial(error)}")
    return Verdict(True)


async def grpc_check(host: str, port: int, service: str, timeout: float) -> Verdict:
    """grpc.health.v1.Health/Check; only SERVING is success. The two messages are one field each, written by hand."""
    import grpc

    from machinery import grpc as transport

    name = service.encode()
    if len(name) > 127:  # one byte of length; longer names are no service names
        return Verdict(False, "service name is too long", error=True)
    request = b"\x0a" + bytes([len(name)]) + name if name else b""
    channel = transport.channel(f"{host}:{port}")
    try:
        check: Any = channel.unary_unary(
            "/grpc.health.v1.Health/Check", request_serializer=None, response_deserializer=None
        )
        answer: bytes = await check(request, timeout=timeout)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return Verdict(
                False, f'timeout: failed to connect service "{host}:{port}" within {timeout:g}s: {error.details()}'
            )
        return Verdict(False, f"service unhealthy (responded with {error.code().name})")
    finally:
        await channel.close()
    serving = answer[:2] == b"\x08\x01"
    return Verdict(serving, "" if serving else 'service unhealthy (responded with "NOT_SERVING")')


async def try_probe(cri: Cri, probe: core_v1.Probe, target: Target) -> Verdict:
    """One try of a probe."""
    timeout = float(probe.timeoutSeconds or 1)
    try:
        if probe.exec is not None:
            return await run_exec(cri, target.container_id, probe.exec.command or [], timeout)
        if probe.httpGet is not None:
            return await http_get(probe.httpGet, target, timeout)
        if probe.tcpSocket is not None:
            port = target.port(probe.tcpSocket.port)
            return await tcp_connect(probe.tcpSocket.host or target.ip, port, timeout)
        if probe.grpc is not None:
            return await grpc_check(target.ip, probe.grpc.port, probe.grpc.service or "", timeout)
    except ValueError as error:
        return Verdict(False, str(error), error=True)
    return Verdict(True)
