"""One HTTP request on its way through the REST door.

Owns: the parsed head of a request and its lazily read parts. Never answers. Made by the door, read by handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from apiserver.audit.record import Record
from apiserver.auth.user import ANONYMOUS_USER, UserInfo
from apiserver.registry.context import RequestContext
from apiserver.rest import query as queries
from apiserver.rest.negotiation import only_protobuf
from apiserver.rest.paths import RequestInfo
from apiserver.rest.responses import Chunk, Header, Receive, Send, Whole, audit_id

MANAGER_LIMIT = 128


class Request:
    """What handlers get. `headers` keeps the last of repeated headers; `scope["headers"]` has them all."""

    __slots__ = (
        "actor",
        "audit",
        "chunk",
        "code",
        "flow",
        "headers",
        "info",
        "may_create",
        "method",
        "namespace",
        "query",
        "receive",
        "record",
        "scope",
        "send",
        "size",
        "turn",
        "user",
        "warnings",
        "whole",
    )

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.method: str = scope["method"]
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self.query = queries.NO_QUERY
        self.user: UserInfo = ANONYMOUS_USER
        self.may_create: Callable[[], None] | None = None  # of a write that may turn out to create
        self.actor: UserInfo | None = None  # who has authenticated; somebody else than the user when impersonating
        self.info = RequestInfo()
        self.namespace = ""  # "" for cluster-scoped resources, whatever the path says
        self.warnings: list[str] = []
        self.flow: tuple[Header, ...] = ()  # which FlowSchema and priority level it belongs to
        self.code = 0  # of the answer, once it has begun
        self.size = 0  # of its body in bytes, where it was known before
        given = self.headers.get(b"audit-id")
        taken = given is not None and len(given) <= 64 and given.replace(b"-", b"").isalnum()
        self.audit = given if given is not None and taken else audit_id()
        self.record: Record | None = None  # for the audit log
        self.turn: Callable[[], None] | None = None  # gives back the seat of a watch that begins
        self.whole: Whole | None = scope["state"].get("whole")
        self.chunk: Chunk | None = scope["state"].get("chunk")

    def header(self, name: bytes) -> str:
        value = self.headers.get(name)
        return value.decode("latin-1") if value is not None else ""

    @property
    def user_agent(self) -> str:
        return self.header(b"user-agent")

    @property
    def only_protobuf(self) -> bool:
        """The client understands nothing but protobuf."""
        return only_protobuf(self.header(b"accept"))

    def context(self, options: queries.WriteQuery = queries.PLAIN_WRITE) -> RequestContext:
        """The registry's view of this request."""
        agent = self.user_agent
        return RequestContext(
            self.user,
            options.dry_run,
            options.field_manager or agent.partition("/")[0][:MANAGER_LIMIT],
            options.field_validation,
            agent,
            self.warnings,
            may_create=self.may_create,
        )
