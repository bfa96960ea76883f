"""Load on an API server over REST: wrk on TLS with a bearer token, and what it cost the server.

Owns the wrk scripts and the reading of processor time. The generator shares the cores with the server, so it is kept
lean: scripts build a request by one concatenation and leave answers to wrk, which counts what is not 2xx itself.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import ssl
import subprocess
import tempfile
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

from bench.harness import say
from cli import layout, tools
from tests.harness.nanokube import Cluster

_TICKS = os.sysconf("SC_CLK_TCK")

_HEAD = """
local made = 0
function setup(thread) thread:set("thread", made); made = made + 1 end
local count, stamp = 0, os.time()
"""
_POST = """
function request()
  count = count + 1
  local body = BEFORE .. string.format("%x-%d-%d", stamp, thread, count) .. AFTER
  return HEAD .. #body .. "\\r\\n\\r\\n" .. body
end
"""


@dataclass(frozen=True)
class Load:
    """What one run of the generator saw. CPU is in seconds."""

    requests: int
    seconds: float
    server_cpu: float
    store_cpu: float
    client_cpu: float
    received: float
    """Bytes a second."""

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    @property
    def server_cost(self) -> float:
        """Microseconds of the server's CPU a request."""
        return self.server_cpu / max(self.requests, 1) * 1e6

    def __str__(self) -> str:
        each = 1e6 / max(self.requests, 1)
        return (
            f"{self.rate:,.0f}/s; CPU a request: server {self.server_cpu * each:,.0f} µs, etcd "
            f"{self.store_cpu * each:,.0f} µs, generator {self.client_cpu * each:,.0f} µs"
        )


class Target:
    """The API server of a cluster, as its administrator reaches it."""

    def __init__(self, made: Cluster) -> None:
        config = layout.load(layout.ClusterPaths.of(made.name))
        assert config is not None
        self.port = config.rest_port
        self.token = (Path(made.root) / "pki" / "tokens.csv").read_text().partition(",")[0]
        self.cluster = made
        pids = {entry["component"]: int(entry["pid"]) for entry in made.processes()}
        self.pid, self.store_pid = pids["apiserver"], pids["etcd"]

    def get(self, path: str, connections: int, seconds: float) -> Load:
        """GETs of one path."""
        return self._run(path, "", connections, seconds)

    def post(self, path: str, body: str, connections: int, seconds: float) -> Load:
        """Creates of objects; `{name}` in the body becomes a name of its own each time."""
        before, after = (_lua(part) for part in body.split("{name}"))
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.token}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )
        script = f"local HEAD, BEFORE, AFTER = {_lua(head)}, {before}, {after}\n{_HEAD}{_POST}"
        return self._run(path, script, connections, seconds)

    def fill(self, path: str, body: str, count: int) -> None:
        """Create exactly so many objects."""
        link = self._link()
        for number in range(count):
            link.request("POST", path, body.replace("{name}", f"fill-{number}"), self._headers)
            answer = link.getresponse()
            told = answer.read()
            if answer.status != 201:
                raise RuntimeError(told.decode())
        link.close()

    def count(self, path: str) -> int:
        """How many objects a list holds."""
        page = self._first(path)
        return len(page["items"]) + int(page["metadata"].get("remainingItemCount", 0))

    def revision(self, path: str) -> str:
        """resourceVersion of a list."""
        return str(self._first(path)["metadata"]["resourceVersion"])

    def _first(self, path: str) -> Any:
        link = self._link()
        link.request("GET", f"{path}?limit=1", headers=self._headers)
        page = json.load(link.getresponse())
        link.close()
        return page

    def _link(self) -> HTTPSConnection:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return HTTPSConnection("127.0.0.1", self.port, context=context)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}

    def _run(self, path: str, script: str, connections: int, seconds: float) -> Load:
        if shutil.which("wrk") is None:
            tools.install_packages(["wrk"], say)
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
            file.write(script)
            file.flush()
            argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "-H", f"Authorization: Bearer {self.token}"]
            argv += ["-s", file.name] if script else []
            server, store, client = cpu(self.pid), cpu(self.store_pid), _children()
            argv.append(f"https://127.0.0.1:{self.port}{path}")
            told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
            spent = cpu(self.pid) - server, cpu(self.store_pid) - store, _children() - client
        if "Non-2xx" in told or "Socket errors" in told:
            raise RuntimeError(f"wrk met failures:\n{told[:2000]}")
        match = re.search(r"(\d+) requests in ([\d.]+)s, ([\d.]+)([KMG]?)B read", told)
        if match is None:
            raise RuntimeError(told)
        took = float(match[2])
        received = float(match[3]) * {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[match[4]] / took
        return Load(int(match[1]), took, *spent, received)


def cpu(pid: int) -> float:
    """Processor seconds that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _lua(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "\\r").replace("\n", "\\n")
    return f'"{quoted}"'
