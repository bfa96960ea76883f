"""The REST door's side of the audit log.

Owns: what an event takes from an HTTP request (URI, addresses, agent), and the stages of answers that last. Called by
the door, and only when there is a policy.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from apiserver.audit.auditor import Auditor
from apiserver.audit.record import Head, Record, agent_of
from apiserver.auth.user import UserInfo
from apiserver.registry.context import ANNOTATIONS
from apiserver.rest.request import Request
from apiserver.rest.responses import Send


def begin(auditor: Auditor, request: Request, *, lasting: bool = False) -> None:
    """Put a record into the request, if the policy wants one. `lasting`: its answer's head is a stage of its own."""
    user = request.actor or request.user
    verdict = auditor.verdict(user, request.info)
    if not auditor.wants(verdict):
        return
    head = Head(request.audit.decode("latin-1"), _uri(request), _sources(request), agent_of(request.user_agent))
    record = auditor.record(verdict, user, request.info, head)
    if request.actor is not None and request.actor is not request.user:
        record.impersonated = request.user
    request.record = record
    ANNOTATIONS.set(record.annotations)
    if lasting:
        request.send = _telling(request.send, record)


def refused_at_the_door(auditor: Auditor, request: Request, known: UserInfo) -> None:
    """A request that got no further than authentication or impersonation: by whom it seemed to be."""
    request.user = known
    begin(auditor, request)


def _telling(send: Send, record: Record) -> Send:
    async def telling(message: MutableMapping[str, Any]) -> None:
        await send(message)
        kind = message["type"]
        if kind == "http.response.start":
            record.started(message["status"])
        elif kind == "websocket.accept":
            record.started(101)

    return telling


def _uri(request: Request) -> str:
    scope = request.scope
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return (path + b"?" + query if query else path).decode("latin-1")


def _sources(request: Request) -> list[str]:
    headers, client = request.headers, request.scope.get("client")
    own = [client[0]] if client else []
    if b"x-forwarded-for" not in headers and b"x-real-ip" not in headers:
        return own
    named = [*request.header(b"x-forwarded-for").split(","), request.header(b"x-real-ip")]
    return list(dict.fromkeys([*filter(None, (each.strip() for each in named)), *own]))
