"""The gRPC door of explanations: why a pod is where it is, or nowhere.

Owns the translation of `Scheduler.explain` into messages. Listens on a Unix socket in a private folder, so who may
reach it is decided by file permissions. Called by the process, asked by `nanokube explain`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from machinery import grpc as transport
from machinery.errors import NotFound, ServiceUnavailable
from machinery.meta import ObjectKey, rfc3339
from proto.explain.v1 import explain_pb2 as pb
from scheduler.explanations import Explanation
from scheduler.scheduler import Scheduler

if TYPE_CHECKING:
    import grpc.aio

GRACE: Final = 1.0


def message_of(explanation: Explanation) -> pb.PodExplanation:
    made = pb.PodExplanation(
        recomputed=explanation.recomputed,
        queue=explanation.place,
        gate=explanation.gate,
        scheduler=explanation.foreign,
    )
    made.claims.extend(pb.Claim(name=name, state=state) for name, state in explanation.claims)
    record = explanation.last
    if record is not None:
        made.last.CopyFrom(
            pb.Attempt(
                time=rfc3339(record.at),
                number=record.attempt,
                node_count=record.nodes,
                node=record.node,
                ties=record.ties,
                score=record.score,
                message=record.message,
                nominated_node=record.nominated_node,
            )
        )
    for verdict in explanation.nodes:
        made.nodes.add(
            node=verdict.node,
            refused_by=verdict.refused_by,
            reasons=verdict.reasons,
            scores=[pb.PluginScore(plugin=plugin, score=score) for plugin, score in verdict.scores.items()],
        )
    return made


class ExplainServer:
    """`async with ExplainServer(scheduler, "unix:/path"):`"""

    def __init__(self, scheduler: Scheduler, address: str) -> None:
        self._scheduler = scheduler
        self._address = address
        self._server: grpc.aio.Server | None = None

    async def __aenter__(self) -> ExplainServer:
        from proto.explain.v1 import explain_pb2_grpc

        scheduler = self._scheduler

        class Servicer(explain_pb2_grpc.ExplainServiceServicer):
            async def ExplainPod(self, request: pb.ExplainPodRequest, context: Any) -> pb.PodExplanation:
                if not scheduler.has_synced:
                    await transport.abort(context, ServiceUnavailable("the scheduler has not read the cluster yet"))
                found = scheduler.explain(ObjectKey(request.namespace, request.name))
                if found is None:
                    await transport.abort(context, NotFound.of(resource="pods", name=request.name))
                return message_of(found)

        self._server = transport.server()
        explain_pb2_grpc.add_ExplainServiceServicer_to_server(Servicer(), self._server)
        transport.add_port(self._server, self._address)
        await self._server.start()
        return self

    async def __aexit__(self, *failure: object) -> None:
        if self._server is not None:
            await self._server.stop(GRACE)
