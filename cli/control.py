"""The CLI's side of the supervisor's control socket, and what it can tell about processes and their health."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import msgspec

from cli.errors import CommandError
from cli.layout import ClusterConfig, ClusterPaths, load
from linux import pidfd

TIMEOUT = 60.0
PROBE_TIMEOUT = 2.0


def request(paths: ClusterPaths, command: str, **arguments: Any) -> Any:
    """Ask the supervisor. Raises CommandError with its answer, or when it does not run."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(str(paths.control_socket))
            connection.sendall(msgspec.json.encode({"command": command, **arguments}) + b"\n")
            raw = b""
            while chunk := connection.recv(65536):
                raw += chunk
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise CommandError(f"cluster {paths.root.name} is not running (try: ./nanokube up)") from error
    except OSError as error:
        raise CommandError(f"the supervisor does not answer: {error}") from error
    try:
        reply = msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise CommandError("the supervisor ended before it answered") from error
    if "error" in reply:
        raise CommandError(reply["error"])
    return reply["ok"]


def is_running(paths: ClusterPaths) -> bool:
    """Whether a supervisor answers."""
    try:
        request(paths, "status")
    except CommandError:
        return False
    return True


def required(name: str) -> tuple[ClusterPaths, ClusterConfig]:
    """Paths and config of an existing cluster. Raises CommandError."""
    paths = ClusterPaths.of(name)
    config = load(paths)
    if config is None:
        raise CommandError(f"no cluster {name!r} on this machine (try: ./nanokube up)")
    return paths, config


def http_get(path: str, target: str, timeout: float = PROBE_TIMEOUT) -> tuple[int, bytes]:
    """One plain HTTP GET over a Unix socket, or to `tcp:HOST:PORT`. Raises OSError."""
    host, _, port = path.removeprefix("tcp:").rpartition(":")
    over_tcp = path.startswith("tcp:")
    with socket.socket(socket.AF_INET if over_tcp else socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect((host, int(port)) if over_tcp else path)
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        raw = b""
        while chunk := connection.recv(65536):
            raw += chunk
    head, _, body = raw.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        raise OSError("not an HTTP answer")
    return int(words[1]), body


def health(process: dict[str, Any]) -> str:
    """`Healthy`, `NotReady`, `Frozen`, `Unreachable` or `Dead` for one entry of the supervisor's table."""
    if not process["pid"] or pidfd.start_time(process["pid"]) is None:
        return "Dead"
    if process["frozen"]:
        return "Frozen"
    target = {"etcd": "/health", "prometheus": "/-/ready"}.get(process["component"], "/readyz")
    try:
        code, _ = http_get(process["health"], target)
    except OSError:
        return "Unreachable"
    return "Healthy" if code == 200 else "NotReady"


def recorded(paths: ClusterPaths) -> list[pidfd.ProcessRef]:
    """Processes that an earlier supervisor noted down and that still run."""
    try:
        table = msgspec.json.decode((paths.run / "processes.json").read_bytes())
    except (OSError, msgspec.DecodeError):
        return []
    found = [pidfd.ProcessRef(entry["pid"], entry["start"]) for entry in table if entry["start"] is not None]
    return [ref for ref in found if ref.pid != os.getpid() and ref.alive()]


def supervisor(paths: ClusterPaths) -> pidfd.ProcessRef | None:
    """The running supervisor process, told by its pid file."""
    try:
        pid, start = (int(word) for word in Path(paths.supervisor_pid).read_text().split())
    except (OSError, ValueError):
        return None
    ref = pidfd.ProcessRef(pid, start)
    return ref if ref.alive() else None
