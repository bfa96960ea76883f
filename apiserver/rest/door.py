"""The REST door: one ASGI application for everything HTTP.

Owns: the way of a request (read the line, authenticate, authorize, limit, dispatch, answer errors, count). Never
touches objects. `apiserver.rest.server` runs it under uvicorn; `apiserver.app` builds it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import Coroutine, MutableMapping
from functools import partial
from time import monotonic, perf_counter
from typing import Any

from apiserver.aggregation.aggregator import Aggregator
from apiserver.aggregation.model import ApiService
from apiserver.audit.auditor import Auditor
from apiserver.auth.attributes import forbidden
from apiserver.auth.gate import EXTRA, GROUP, UID, USER, Gate
from apiserver.auth.user import MASTERS, UserInfo
from apiserver.flowcontrol.control import FlowControl, Place, seats_of
from apiserver.metrics import RequestMetrics, Series
from apiserver.rest import audited, deadlines, paths, query
from apiserver.rest.bodies import ClientGone
from apiserver.rest.deadlines import Deadlines
from apiserver.rest.limits import InFlight
from apiserver.rest.request import Request
from apiserver.rest.resources import ResourceHandlers
from apiserver.rest.responses import Receive, Send, send_error, send_not_found_page
from apiserver.rest.server import Peer
from apiserver.rest.system import SystemHandlers
from machinery.errors import InternalError, NotFound, StatusError
from machinery.log import kv
from machinery.nesting import too_deep

log = logging.getLogger("apiserver.rest")

# Probes must be answered before any role is known; upstream's --authorization-always-allow-paths.
ALWAYS_ALLOWED = frozenset({"/healthz", "/livez", "/readyz"})
# Requests that may last; they take no place among those under way.
LONG_RUNNING = frozenset({"log", "exec", "attach", "portforward", "proxy"})
COMMANDING = frozenset({"exec", "attach", "portforward"})
WEBSOCKET_PROTOCOL = b"sec-websocket-protocol"
BEARER_PROTOCOL = "base64url.bearer.authorization.k8s.io."
CLIENT_GONE = 499  # in metrics only
_IMPERSONATION = (USER, GROUP, UID)
NOBODY = UserInfo("")  # in the audit log, for a request whose credentials were refused


class RestDoor:
    """ASGI application."""

    def __init__(
        self,
        gate: Gate,
        resources: ResourceHandlers,
        system: SystemHandlers,
        metrics: RequestMetrics,
        in_flight: InFlight,
        aggregator: Aggregator | None = None,
        auditor: Auditor | None = None,
        flow: FlowControl | None = None,
        limits: Deadlines | None = None,
    ) -> None:
        self._deadlines = limits if limits is not None else Deadlines()
        self._flow = flow if flow is not None else FlowControl()
        self._auditor = auditor
        self._aggregator = aggregator
        self._gate = gate
        self._resources = resources
        self._system = system
        self._metrics = metrics
        self._in_flight = in_flight

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._serve(Request(scope, receive, send))
        elif scope["type"] == "websocket":
            await self._serve_websocket(scope, receive, send)

    async def _serve(self, request: Request) -> None:
        if self._auditor is None:
            await self._serve_unrecorded(request)
            return
        try:
            await self._serve_unrecorded(request)
        finally:
            if request.record is not None:
                request.record.complete(request.code)

    async def _serve_unrecorded(self, request: Request) -> None:
        began = perf_counter()
        try:
            await self._answer_shallow(request)
        except StatusError as error:
            if request.code:
                raise  # the answer is broken off; the connection must not be used again
            if self._auditor is not None:
                self._record_refusal(request, error)
            await send_error(request, error)
        except ClientGone:
            request.code = CLIENT_GONE
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not self._deadlines.is_late(task) or request.code:
                raise
            await self._tell_late(request)
        except Exception as error:
            log.exception("Failed a request", extra=kv(method=request.method, path=request.scope["path"]))
            if request.record is not None:
                request.record.panicked(type(error).__name__)
                request.record = None
            if request.code:
                raise
            await send_error(request, InternalError.of(type(error).__name__))
        series = self._series(request)
        if request.code >= 400 and request.info.is_resource and not self._resources.serves(request.info):
            series = (request.method, "", "", "", "", "")  # names that clients make up must not become labels
        self._metrics.observe(series, request.code, perf_counter() - began, request.size)

    async def _answer_shallow(self, request: Request) -> None:
        try:
            await self._answer(request)
        except RecursionError as error:
            log.warning(
                "Refused what is nested too deeply", extra=kv(method=request.method, path=request.scope["path"])
            )
            raise too_deep() from error

    async def _answer(self, request: Request) -> None:
        scope = request.scope
        info = paths.parse(request.method, scope["path"])
        if scope["query_string"]:
            request.query = query.parse(scope["query_string"])
        await self._identify(request)
        elsewhere = self._aggregator.of_path(info.path) if self._aggregator is not None else None
        if info.deep and elsewhere is None:
            raise NotFound.path()
        request.info = info
        if not info.is_resource:
            place = self._place(request)
            if self._auditor is not None:
                audited.begin(self._auditor, request)
            if info.path not in ALWAYS_ALLOWED:
                self._authorize(request)
            if place is None:
                await self._serve_path(request, elsewhere)
            else:
                await self._in_turn(request, place, 1, self._serve_path(request, elsewhere))
            return
        if info.verb in ("list", "watch", "get") and request.query:
            self._refine(request)
        elif info.verb in ("update", "patch") and not info.subresource:
            request.may_create = self._gate.creates(request.user, info)
        lasting = info.verb == "watch" or info.subresource in LONG_RUNNING
        if self._auditor is not None:
            audited.begin(self._auditor, request, lasting=lasting)
        place = self._place(request) if not lasting or info.verb == "watch" else None
        if MASTERS not in request.user.groups or request.record is not None:
            self._authorize(request)
        if lasting or (elsewhere is not None and "tunnel" in scope["state"]):
            series = self._series(request)
            self._metrics.long_running(series, 1)
            try:
                if place is not None:
                    await self._until_begun(request, place)
                await self._serve_resource(request, elsewhere)
            finally:
                self._metrics.long_running(series, -1)
                if request.turn is not None:
                    request.turn()
            return
        if place is None:
            await self._counted(request, elsewhere)
            return
        level = place.level
        seats = 1 if info.verb != "list" else seats_of(partial(self._resources.count, request))
        if not level.take(seats):
            await self._flow.wait(place, seats)
        self._flow.dispatched[place.names] += 1
        try:
            await self._counted(request, elsewhere)
        finally:
            level.leave(seats)

    async def _tell_late(self, request: Request) -> None:
        error = deadlines.allotted()
        if request.record is not None:
            request.record.status(error.to_status())
        await send_error(request, error)

    def _place(self, request: Request) -> Place | None:
        """Where the request belongs; its answer names it."""
        place = self._flow.place(request.user, request.info)
        if place is not None:
            request.flow = place.headers
        return place

    async def _in_turn(self, request: Request, place: Place, seats: int, work: Coroutine[Any, Any, None]) -> None:
        try:
            if not place.level.take(seats):
                await self._flow.wait(place, seats)
        except BaseException:
            work.close()
            raise
        self._flow.dispatched[place.names] += 1
        try:
            await work
        finally:
            place.level.leave(seats)

    async def _until_begun(self, request: Request, place: Place) -> None:
        """A watch takes a seat for as long as it begins: until the head of its answer is out."""
        if not place.level.take(1):
            await self._flow.wait(place, 1)
        send = request.send

        def over() -> None:
            request.turn = None
            place.level.leave(1)

        async def begun(message: MutableMapping[str, Any]) -> None:
            if request.turn is not None:
                request.turn()
            await send(message)

        request.turn, request.send = over, begun

    async def _counted(self, request: Request, elsewhere: ApiService | None) -> None:
        seconds = deadlines.asked_for(query.text(request.query, "timeout")) if "timeout" in request.query else None
        lane = self._in_flight.enter(request.method, request.user)
        task = asyncio.current_task()
        assert task is not None
        self._deadlines.begin(task, monotonic())
        try:
            if seconds is None:
                await self._serve_resource(request, elsewhere)
            else:
                work = self._serve_resource(request, elsewhere)
                await self._deadlines.within(seconds, work, lambda: bool(request.code))
        finally:
            self._deadlines.end(task)
            self._in_flight.leave(lane)

    async def _serve_path(self, request: Request, elsewhere: ApiService | None) -> None:
        if elsewhere is not None:
            await self._pass_on(request, elsewhere)
        elif not await self._system.serve(request):
            await send_not_found_page(request)

    async def _serve_resource(self, request: Request, elsewhere: ApiService | None) -> None:
        if elsewhere is not None:
            await self._pass_on(request, elsewhere)
        else:
            await self._resources.serve(request)

    async def _pass_on(self, request: Request, service: ApiService) -> None:
        assert self._aggregator is not None
        await self._aggregator.serve(request, service)

    async def _identify(self, request: Request) -> None:
        peer: Peer | None = request.scope["state"].get("peer")
        if request.scope["type"] == "http" and WEBSOCKET_PROTOCOL in request.headers:
            offered = request.header(WEBSOCKET_PROTOCOL).split(",")
            request.scope["subprotocols"] = [each.strip() for each in offered]
            _token_from_protocols(request)
        headers = request.headers
        user = await self._gate.authenticate(peer.user if peer is not None else None, headers.get(b"authorization"))
        request.user = request.actor = user
        for name in headers:
            if name in _IMPERSONATION or name.startswith(EXTRA):
                request.user = self._gate.impersonate(user, request.scope["headers"])
                break

    @staticmethod
    def _refine(request: Request) -> None:
        """Watches are lists by the path; what their field selector pins counts for authorization."""
        info = request.info
        info.field_selector = query.text(request.query, "fieldSelector")
        if info.verb == "list" and query.is_watch(request.query):
            info.verb = "watch"

    def _authorize(self, request: Request) -> None:
        info = request.info
        decision = self._gate.decide(request.user, info)
        if not decision.allowed and info.field_selector and not info.name:
            # A list of one object by name is a read of that name.
            name = paths.selected_name(info.field_selector)
            if name:
                info.name = name
                decision = self._gate.decide(request.user, info)
                info.name = ""
        if request.record is not None:
            request.record.decided(decision)
        if not decision.allowed:
            raise forbidden(request.user, info, decision.reason)

    def _record_refusal(self, request: Request, error: StatusError) -> None:
        if not request.info.path and self._auditor is not None:  # refused before anything else was looked at
            request.info = paths.parse(request.method, request.scope["path"])
            audited.refused_at_the_door(self._auditor, request, request.actor or NOBODY)
        if request.record is not None:
            request.record.status(error.to_status())

    @staticmethod
    def _series(request: Request) -> Series:
        info = request.info
        if not info.is_resource:
            return (request.method, "", "", "", "", "")
        verb = info.verb.upper() if info.verb in ("list", "watch") else request.method
        scope = "resource" if info.name else "namespace" if info.namespace else "cluster"
        return (verb, info.group, info.version, info.resource, info.subresource, scope)

    async def _serve_websocket(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Streams that begin as an upgrade; a refusal becomes an HTTP answer to the handshake."""
        scope["method"] = "GET"
        request = Request(scope, receive, denial(send))
        try:
            message = await receive()
            if message["type"] != "websocket.connect":
                return
            info = paths.parse("GET", scope["path"])
            request.query = query.parse(scope["query_string"])
            _token_from_protocols(request)
            await self._identify(request)
            if info.deep or not info.is_resource:
                raise NotFound.path()
            request.info = info
            request.send = send
            if request.query:
                self._refine(request)
            if self._auditor is not None:
                audited.begin(self._auditor, request, lasting=True)
            if info.subresource in COMMANDING:
                # A read by its method, that changes things by what it does: both rights are needed.
                info.verb = "create"
                self._authorize(request)
                info.verb = "get"
            self._authorize(request)
            series = self._series(request)
            self._metrics.long_running(series, 1)
            try:
                await self._resources.serve_websocket(request)
            finally:
                self._metrics.long_running(series, -1)
        except StatusError as error:
            if request.record is not None:
                request.record.status(error.to_status())
            if request.code:
                await send({"type": "websocket.close", "code": 1011})
                return
            request.send = denial(send)
            await send_error(request, error)
        except ClientGone:
            pass
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("Failed a stream", extra=kv(path=scope["path"]))
            await send({"type": "websocket.close", "code": 1011})
        finally:
            if request.record is not None:
                request.record.complete(request.code or 101)


def _token_from_protocols(request: Request) -> None:
    """Browsers cannot set headers on a WebSocket, so a bearer token may come as an offered sub-protocol."""
    offered = list(request.scope.get("subprotocols") or ())
    for protocol in offered:
        if protocol.startswith(BEARER_PROTOCOL):
            encoded = protocol[len(BEARER_PROTOCOL) :]
            with contextlib.suppress(ValueError):
                token = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
                request.headers = {**request.headers, b"authorization": b"Bearer " + token}
            request.scope["subprotocols"] = [other for other in offered if other != protocol]
            return


def denial(send: Send) -> Send:
    """HTTP answers to a WebSocket handshake, by ASGI's denial extension."""

    async def translated(message: MutableMapping[str, Any]) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    return translated
