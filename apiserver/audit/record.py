"""One request as the audit log sees it: what is known at each stage, as audit.k8s.io/v1 Event.

Owns: the fields of an event and what of objects is shown. Never decides whether to record. Made by `Auditor`, fed by
the doors and the handlers.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from apiserver.audit.policy import COMPLETE, METADATA, PANIC, REQUEST_RESPONSE, STARTED, Verdict
from apiserver.auth.attributes import Attributes, Decision
from apiserver.auth.user import UserInfo
from machinery.caching import keep_short

DECISION, REASON = "authorization.k8s.io/decision", "authorization.k8s.io/reason"
PATCHES = "patch.webhook.admission.k8s.io/"
"""Begins annotations that show parts of bodies."""
AGENT_LIMIT = 1024
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
Obj = dict[str, Any]
Emit = Callable[[bytes], None]


class Head(NamedTuple):
    """What a transport knows of a request."""

    audit_id: str
    uri: str
    sources: list[str]
    agent: str


_second: tuple[int, str] = (0, "")


def micro_time(seconds: float) -> str:
    """RFC 3339 with microseconds, as metav1.MicroTime. The text of a second is made once."""
    global _second
    whole = int(seconds)
    if whole != _second[0]:
        _second = (whole, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)))
    return f"{_second[1]}.{int((seconds - whole) * 1e6):06d}Z"


@keep_short(1024)
def _user(name: str, groups: tuple[str, ...], uid: str) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(UserInfo(name, groups, uid).to_dict()))


def _shown_user(user: UserInfo) -> Any:
    return user.to_dict() if user.extra else _user(user.name, user.groups, user.uid)


class _Reference(msgspec.Struct, omit_defaults=True):
    resource: str = ""
    namespace: str = ""
    name: str = ""
    apiGroup: str = ""
    apiVersion: str = ""
    subresource: str = ""


class _Event(msgspec.Struct):
    level: str
    auditID: str
    stage: str
    requestURI: str
    verb: str
    user: Any
    userAgent: str
    requestReceivedTimestamp: str
    stageTimestamp: str
    kind: str = "Event"
    apiVersion: str = "audit.k8s.io/v1"
    sourceIPs: list[str] | msgspec.UnsetType = msgspec.UNSET
    impersonatedUser: Any = msgspec.UNSET
    objectRef: _Reference | msgspec.UnsetType = msgspec.UNSET
    responseStatus: Any = msgspec.UNSET
    requestObject: Any = msgspec.UNSET
    responseObject: Any = msgspec.UNSET
    annotations: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


class Record:
    """The event of one request. Stages are told by calling `received`, `started` and `complete` or `panicked`."""

    __slots__ = (
        "_asked",
        "_emit",
        "_head",
        "_name",
        "_received",
        "_response",
        "_started",
        "_status",
        "_user",
        "annotations",
        "impersonated",
        "level",
        "request_object",
        "verdict",
    )

    def __init__(self, verdict: Verdict, emit: Emit, user: UserInfo, asked: Attributes, head: Head) -> None:
        self.verdict = verdict
        self.level = verdict.level
        self._emit = emit
        self._asked = asked
        self._head = head
        self._user = user
        self._received = time.time()
        self.annotations: dict[str, str] = {}
        self.impersonated: UserInfo | None = None
        self.request_object: bytes | None = None
        self._name = ""
        self._response: bytes | None = None
        self._status: Obj | None = None
        self._started = False

    # What the doors tell.

    def decided(self, decision: Decision) -> None:
        """What authorization said."""
        self.annotations[DECISION] = "allow" if decision.allowed else "forbid"
        self.annotations[REASON] = decision.reason

    def takes_request(self) -> bool:
        """Whether the request's object is wanted whole."""
        return self.level != METADATA

    def takes_response(self) -> bool:
        """Whether the answer's object is wanted."""
        return self.level == REQUEST_RESPONSE

    def sent_raw(self, raw: bytes) -> None:
        """A patch as it came; what is no JSON is left out."""
        if self.takes_request():
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self.request_object = msgspec.json.encode(_decode(raw))

    def sent(self, obj: Any) -> None:
        """The object that the request brought, decoded. A creation's name is known from it."""
        meta = obj.get("metadata") if isinstance(obj, dict) else None
        if isinstance(meta, dict) and not self._asked.name and self._asked.verb == "create":
            self._name = str(meta.get("name") or "")
        if self.takes_request():
            self.request_object = msgspec.json.encode(obj)

    def named(self, name: str) -> None:
        """The object's name, where the request did not tell it."""
        if not self._asked.name:
            self._name = name

    def answered(self, raw: bytes) -> None:
        """The object of the answer, as JSON."""
        if self.takes_response():
            self._response = raw

    def status(self, status: Obj) -> None:
        """The answer is this Status."""
        self._status = {key: status[key] for key in ("status", "message", "reason", "details", "code") if key in status}

    # Stages.

    def stage(self, stage: str, code: int = 0) -> None:
        """Tell a stage, unless the policy leaves it out."""
        if stage in self.verdict.omit_stages:
            return
        asked, head = self._asked, self._head
        event = _Event(
            self.level,
            head.audit_id,
            stage,
            head.uri,
            asked.verb,
            _shown_user(self._user),
            head.agent,
            micro_time(self._received),
            micro_time(time.time()),
        )
        if head.sources:
            event.sourceIPs = head.sources
        if self.impersonated is not None:
            event.impersonatedUser = _shown_user(self.impersonated)
        if asked.is_resource:
            event.objectRef = _Reference(
                asked.resource, asked.namespace, asked.name or self._name, asked.group, asked.version, asked.subresource
            )
        if code:
            event.responseStatus = {"metadata": {}, **(self._status or {}), "code": code}
        if self.request_object is not None:
            event.requestObject = self._shown(self.request_object)
        if self._response is not None and stage == COMPLETE:
            event.responseObject = self._shown(self._response)
        if self.annotations:
            told = self.annotations
            if not self.takes_request():
                told = {key: text for key, text in told.items() if not key.startswith(PATCHES)}
            event.annotations = told
        self._emit(_encode(event))

    def started(self, code: int) -> None:
        """The head of a long answer is out; told once."""
        if not self._started:
            self._started = True
            self.stage(STARTED, code)

    def complete(self, code: int) -> None:
        self.stage(COMPLETE, code)

    def panicked(self, what: str) -> None:
        """The server failed the request by a fault of its own."""
        self._status = {"status": "Failure", "message": f"APIServer panic'd: {what}", "reason": "InternalError"}
        self.stage(PANIC, 500)

    def _shown(self, raw: bytes) -> Any:
        if not self.verdict.omit_managed_fields or b'"managedFields"' not in raw:
            return msgspec.Raw(raw)
        value = _decode(raw)
        for each in (value, *(value.get("items") or ())) if isinstance(value, dict) else ():
            meta = each.get("metadata") if isinstance(each, dict) else None
            if isinstance(meta, dict):
                meta.pop("managedFields", None)
        return value


def agent_of(agent: str) -> str:
    """A user agent, cut where upstream cuts it."""
    return agent if len(agent) <= AGENT_LIMIT else f"{agent[:AGENT_LIMIT]}...TRUNCATED"
