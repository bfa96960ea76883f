"""Serves the last decisions of a component: why an autoscaler did, or did not do, something.

Owns the door only: a Unix socket in a private folder, so who may reach it is decided by file permissions. What is told
is made by the component, from what it remembers of its last decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from machinery import grpc as transport
from machinery.errors import BadRequest, NotFound
from proto.explain.v1 import explain_pb2 as pb

if TYPE_CHECKING:
    import grpc.aio

GRACE: Final = 1.0
Explain = Callable[[str, str], pb.Decision | None]
"""(namespace, name) → the last decision, or None when none is remembered."""


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> pb.Table:
    """A table of texts."""
    return pb.Table(title=title, header=header, rows=[pb.Row(cells=[str(cell) for cell in row]) for row in rows])


def facts(found: Mapping[str, object]) -> list[pb.Fact]:
    """Those that have something to say."""
    return [pb.Fact(what=what, value=str(value)) for what, value in found.items() if value not in (None, "")]


class DecisionServer:
    """`async with DecisionServer("unix:/path", {"hpa": explain}):`"""

    def __init__(self, address: str, kinds: Mapping[str, Explain]) -> None:
        self._address = address
        self._kinds = kinds
        self._server: grpc.aio.Server | None = None

    async def Explain(self, request: pb.DecisionRequest, context: Any) -> pb.Decision:
        explain = self._kinds.get(request.kind)
        if explain is None:
            await transport.abort(context, BadRequest(f"no decisions are made about {request.kind!r} here"))
            raise AssertionError
        found = explain(request.namespace, request.name)
        if found is None:
            what = f"{request.namespace}/{request.name}" if request.namespace else request.name
            await transport.abort(context, NotFound(f"no decision about {request.kind} {what} is remembered"))
            raise AssertionError
        return found

    async def __aenter__(self) -> DecisionServer:
        from proto.explain.v1 import explain_pb2_grpc

        self._server = transport.server()
        explain_pb2_grpc.add_DecisionServiceServicer_to_server(self, self._server)  # type: ignore[arg-type]
        transport.add_port(self._server, self._address)
        await self._server.start()
        return self

    async def __aexit__(self, *failure: object) -> None:
        if self._server is not None:
            await self._server.stop(GRACE)
