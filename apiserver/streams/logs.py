"""`pods/log`: a container's log, from its kubelet, as a plain text answer.

Owns: the options of a log request and the relay of chunks. A client that does not read holds the kubelet's stream
back, nothing piles up here. Called by the REST door.
"""

from __future__ import annotations

import asyncio
from typing import Any

from apiserver.rest import query
from apiserver.rest.request import Request
from apiserver.rest.responses import TEXT_TYPE
from apiserver.streams.targets import Kubelets
from machinery.field_errors import FieldError, invalid
from machinery.meta import parse_time

CONNECT_SECONDS = 10.0  # real: a kubelet that cannot be reached in this time is away


def log_options(options: query.Query) -> dict[str, Any]:
    """PodLogOptions as fields of a LogsRequest. Raises BadRequest or Invalid."""
    found: dict[str, Any] = {
        "follow": query.flag(options, "follow"),
        "previous": query.flag(options, "previous"),
        "timestamps": query.flag(options, "timestamps"),
        "since_time": query.text(options, "sinceTime"),
    }
    numbers = {
        "tail_lines": ("tailLines", 0, "must be greater than or equal to 0"),
        "limit_bytes": ("limitBytes", 1, "must be greater than 0"),
        "since_seconds": ("sinceSeconds", 1, "must be greater than 0"),
    }
    findings: list[FieldError] = []
    for field, (name, least, why) in numbers.items():
        value = query.number(options, name)
        if value is not None:
            found[field] = value
            if value < least:
                findings.append(FieldError.invalid(name, value, why))
    if found["since_time"]:
        try:
            parse_time(found["since_time"])
        except ValueError:
            findings.append(FieldError.invalid("sinceTime", found["since_time"], "must be a valid RFC 3339 time"))
        if "since_seconds" in found:
            findings.append(FieldError.forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    if findings:
        raise invalid("PodLogOptions", "", "", findings)
    return found


class LogStreams:
    """Answers `GET …/pods/<name>/log`."""

    def __init__(self, kubelets: Kubelets) -> None:
        self._kubelets = kubelets

    async def serve(self, request: Request) -> None:
        """Raises StatusError before the first byte."""
        import grpc

        from machinery.grpc import status_of
        from proto.kubelet.v1 import kubelet_pb2 as pb

        info = request.info
        options = log_options(request.query)
        container = query.text(request.query, "container")
        target = await self._kubelets.target(request.namespace, info.name, container, need_node=False)
        if not target.address:
            await self._nothing(request)
            return
        message = pb.LogsRequest(namespace=request.namespace, pod=info.name, container=target.container, **options)
        call = self._kubelets.stub(target.address).GetLogs(message)
        try:
            await self._relay(request, call)
        except grpc.RpcError as error:
            if not request.code:
                raise status_of(error) from error  # type: ignore[arg-type]
            # Half an answer is out: its end is all the client can be told.
            await request.send({"type": "http.response.body", "body": b""})
        finally:
            call.cancel()

    @staticmethod
    async def _nothing(request: Request) -> None:
        """A pod that no node has yet has no log: 204."""
        request.code = 204
        headers = [(b"audit-id", request.audit), (b"cache-control", b"no-cache, private")]
        await request.send({"type": "http.response.start", "status": 204, "headers": headers})
        await request.send({"type": "http.response.body", "body": b""})

    async def _relay(self, request: Request, chunks: Any) -> None:
        """Send the head with the first chunk (or when the log turns out to be empty), so that errors keep their code.

        A followed log may be silent for long: then the head goes out after a moment, for the client to see.
        """
        gone = asyncio.ensure_future(_disconnected(request))
        iterator = aiter(chunks)
        following = asyncio.ensure_future(anext(iterator, None))
        try:
            await asyncio.wait({following, gone}, timeout=CONNECT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result()  # an error before the first byte keeps its code
            headers = [
                (b"audit-id", request.audit),
                (b"cache-control", b"no-cache, private"),
                (b"content-type", TEXT_TYPE.partition(b";")[0]),
            ]
            request.code = 200
            await request.send({"type": "http.response.start", "status": 200, "headers": headers})
            while not gone.done():
                await asyncio.wait({following, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    return
                chunk = following.result()
                if chunk is None:
                    break
                await request.send({"type": "http.response.body", "body": chunk.data, "more_body": True})
                following = asyncio.ensure_future(anext(iterator, None))
            await request.send({"type": "http.response.body", "body": b""})
        finally:
            for task in (gone, following):
                task.cancel()
            await asyncio.gather(gone, following, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
