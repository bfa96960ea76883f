"""What is being asked, as authorizers see it.

Owns: `Attributes` (one request), `Decision` (one answer) and the texts of refusals. Called by both doors and by the
access reviews.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from apiserver.auth.user import UserInfo
from machinery.errors import Forbidden


@dataclass(slots=True)
class Attributes:
    """A request: on a resource, or on a plain path (`is_resource` False; then only `path` and `verb` count)."""

    path: str = ""
    verb: str = ""
    is_resource: bool = False
    group: str = ""
    version: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    field_selector: str = ""  # of a list or watch; what nodes may read depends on it


class Decision(NamedTuple):
    """`reason` tells why; a refusal's reason is appended to the message the user gets."""

    allowed: bool
    reason: str = ""


ALLOWED = Decision(True)
NO_OPINION = Decision(False)


class Authorizes(Protocol):
    """Anything that can be asked for a decision. Never blocks: decisions come from memory."""

    def decide(self, user: UserInfo, attributes: Attributes) -> Decision: ...


def forbidden(user: UserInfo, asked: Attributes, reason: str = "") -> Forbidden:
    """The refusal in upstream's words."""
    if not asked.is_resource:
        why = f'forbidden: User "{user.name}" cannot {asked.verb} path "{asked.path}"'
        return Forbidden(f"{why}: {reason}" if reason else why, details={})
    resource = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
    scope = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
    why = f'User "{user.name}" cannot {asked.verb} resource "{resource}" in API group "{asked.group}" {scope}'
    return Forbidden.of(asked.resource, asked.name, asked.group, f"{why}: {reason}" if reason else why)
