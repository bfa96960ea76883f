"""Requests per second over REST: wrk, 32 connections, TLS with a bearer token, etcd durable."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench.harness import Figure, cluster, median, say
from cli import layout, tools
from tests.harness.nanokube import Cluster

ROUNDS, SECONDS, CONNECTIONS = 3, 6, 32

CREATE = """
local thread_number = 0
function setup(thread) thread:set("id", thread_number); thread_number = thread_number + 1 end
local count = 0
local stamp = os.time()
function request()
  count = count + 1
  local name = string.format("b-%d-%d-%d", stamp, id, count)
  local body = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"' .. name .. '"},"data":{"key":"value"}}'
  return wrk.format("POST", "/api/v1/namespaces/default/configmaps", wrk.headers, body)
end
local bad = 0
function response(status) if status ~= 201 then bad = bad + 1; print("status " .. status) end end
"""
GET = """
function request() return wrk.format("GET", "/api/v1/namespaces/default/configmaps/target", wrk.headers) end
function response(status) if status ~= 200 then print("status " .. status) end end
"""


def _wrk(made: Cluster, script: str, token: str) -> float:
    port = _port(made)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        argv = ["wrk", "-t2", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", file.name]
        argv += ["-H", f"Authorization: Bearer {token}", "-H", "Content-Type: application/json"]
        told = subprocess.run([*argv, f"https://127.0.0.1:{port}"], capture_output=True, text=True, check=True).stdout
    if "status " in told:
        raise RuntimeError(f"wrk met failures:\n{told[:2000]}")
    match = re.search(r"Requests/sec:\s+([\d.]+)", told)
    if match is None:
        raise RuntimeError(told)
    return float(match.group(1))


def _port(made: Cluster) -> int:
    config = layout.load(layout.ClusterPaths.of(made.name))
    assert config is not None
    return config.rest_port


def run() -> list[Figure]:
    """A B A B: creates and GETs in turn."""
    if shutil.which("wrk") is None:
        tools.install_packages(["wrk"], say)
    creates: list[float] = []
    gets: list[float] = []
    with cluster("bench-api", "--only", "apiserver") as made:
        token = (Path(made.root) / "pki" / "tokens.csv").read_text().partition(",")[0]
        made.kubectl("create", "configmap", "target", "--from-literal=key=value")
        for number in range(ROUNDS):
            creates.append(_wrk(made, CREATE, token))
            gets.append(_wrk(made, GET, token))
            say(f"api: round {number + 1} of {ROUNDS}: {creates[-1]:.0f} creates/s, {gets[-1]:.0f} GETs/s")
    return [
        Figure("create ConfigMap, 32 clients", f"{median(creates):,.0f}/s", "1,500/s", "1,514/s"),
        Figure("GET ConfigMap, 32 clients", f"{median(gets):,.0f}/s", "8,000/s", "3,045/s"),
    ]
