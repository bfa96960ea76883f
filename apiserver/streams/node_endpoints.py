"""`nodes/proxy` to a kubelet itself: the paths that clients read, made from its gRPC answers.

Owns: `/healthz` and `/stats/summary` in the original's JSON. A kubelet here has no HTTP door, so other paths are not
found. Called by `streams.proxy`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import grpc.aio

from apiserver.rest.request import Request
from apiserver.rest.responses import TEXT_TYPE, encode_json, send_bytes, send_not_found_page
from apiserver.streams.targets import Kubelets, failure
from machinery.meta import rfc3339
from proto.kubelet.v1 import kubelet_pb2 as pb


def _time(nanos: int) -> str:
    return rfc3339(datetime.fromtimestamp(nanos / 1e9, UTC))


def usage(found: pb.Usage) -> dict[str, Any]:
    """`cpu` and `memory` of anything."""
    time = _time(found.time_unix_nanos)
    cpu = {
        "time": time,
        "usageNanoCores": found.cpu_usage_nanocores,
        "usageCoreNanoSeconds": found.cpu_usage_core_nanoseconds,
    }
    memory = {
        "time": time,
        "usageBytes": found.memory_usage_bytes,
        "workingSetBytes": found.memory_working_set_bytes,
        "rssBytes": found.memory_rss_bytes,
    }
    started = {"startTime": _time(found.start_time_unix_nanos)} if found.start_time_unix_nanos else {}
    return {**started, "cpu": cpu, "memory": memory}


def summary(stats: pb.StatsSummary) -> dict[str, Any]:
    """The Summary of a node."""
    pods = [
        {
            "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
            **usage(pod.usage),
            "containers": [{"name": each.name, **usage(each.usage)} for each in pod.containers],
        }
        for pod in stats.pods
    ]
    return {"node": {"nodeName": stats.node, **usage(stats.usage)}, "pods": pods}


async def serve(request: Request, path: str, kubelets: Kubelets, address: str) -> None:
    """Raises StatusError."""
    if request.method not in ("GET", "HEAD") or path.rstrip("/") not in ("/healthz", "/stats/summary"):
        await send_not_found_page(request)
        return
    try:
        stats = await kubelets.stub(address).GetStats(pb.StatsRequest(), timeout=10)
    except grpc.aio.AioRpcError as error:
        raise failure(error, address) from error
    if path.startswith("/healthz"):
        await send_bytes(request, 200, b"ok", content_type=TEXT_TYPE)
    else:
        await send_bytes(request, 200, encode_json(summary(stats)))
