"""What a request brings along and what the registry answers: plain values shared by both doors.

Owns no behaviour. REST and gRPC build the options; `ResourceStore` reads them and builds the results.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from apiserver.auth.user import UserInfo

if TYPE_CHECKING:
    from api.resources import Resource

ANNOTATIONS: ContextVar[dict[str, str] | None] = ContextVar("audit annotations", default=None)
"""Of the request that the running task serves; None when it is not recorded."""


@dataclass(slots=True)
class RequestContext:
    """Who asks and how. `warnings` collects texts for Warning headers."""

    user: UserInfo
    dry_run: bool = False
    field_manager: str = ""
    field_validation: str = ""
    user_agent: str = ""
    warnings: list[str] = field(default_factory=list)
    asked: Resource | None = None
    """The version in which the object was sent, where that is not the one whose rules hold."""
    force: bool = False
    """Apply takes fields from other managers."""
    may_create: Callable[[], None] | None = None
    """Raises Forbidden unless the user may create what a PUT or an apply did not find; None: nobody needs to ask."""
    annotations: dict[str, str] = field(default_factory=lambda: {} if (told := ANNOTATIONS.get()) is None else told)
    """What admission has to tell whoever reads the audit log: those of the event, when the request is recorded."""


@dataclass(frozen=True, slots=True)
class ListOptions:
    """metav1.ListOptions of a list or a deletecollection; texts as the client sent them."""

    label_selector: str = ""
    field_selector: str = ""
    limit: int = 0
    continue_: str = ""
    resource_version: str = ""
    resource_version_match: str = ""
    send_initial_events: bool | None = None


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """metav1.ListOptions of a watch; how long it lasts is the door's business."""

    label_selector: str = ""
    field_selector: str = ""
    resource_version: str = ""
    resource_version_match: str = ""
    continue_: str = ""
    allow_bookmarks: bool = False
    send_initial_events: bool | None = None


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """metav1.DeleteOptions; dryRun is the context's."""

    grace_period_seconds: int | None = None
    propagation_policy: str | None = None
    orphan_dependents: bool | None = None
    uid: str = ""
    resource_version: str = ""


class ListPage(NamedTuple):
    """Objects as JSON with kind, apiVersion and resourceVersion. `remaining` is None where upstream tells none."""

    items: list[bytes]
    resource_version: int
    continue_: str = ""
    remaining: int | None = None
    state: int = 0
    """Not 0: these are all objects of the namespace, and pages of equal numbers hold the same ones."""


class DeleteResult(NamedTuple):
    """`deleted`: the object is gone; otherwise it is marked and waits. `success`: the Status that REST answers."""

    raw: bytes
    deleted: bool
    success: dict[str, Any] | None = None
