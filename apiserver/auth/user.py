"""The identity a request acts under.

Owns: `UserInfo` and the names of Kubernetes' built-in users and groups. Never authenticates anybody. Called by
every part of the API server that asks "who": authentication makes it; authorization, admission and reviews read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ANONYMOUS = "system:anonymous"
ALL_AUTHENTICATED = "system:authenticated"
ALL_UNAUTHENTICATED = "system:unauthenticated"
MASTERS = "system:masters"
NODES = "system:nodes"
NODE_USER_PREFIX = "system:node:"
SERVICE_ACCOUNT_PREFIX = "system:serviceaccount:"
ALL_SERVICE_ACCOUNTS = "system:serviceaccounts"
API_SERVER = "system:apiserver"


@dataclass(frozen=True, slots=True)
class UserInfo:
    """A user as Kubernetes knows one: a name, groups, and what the authenticator adds. Hashable (extra aside)."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    @property
    def node_name(self) -> str:
        """The node this user is the kubelet of; empty for everybody else."""
        if self.name.startswith(NODE_USER_PREFIX) and NODES in self.groups:
            return self.name[len(NODE_USER_PREFIX) :]
        return ""

    def to_dict(self) -> dict[str, object]:
        """authentication.k8s.io/v1 UserInfo; empty fields are left out."""
        out: dict[str, object] = {}
        if self.name:
            out["username"] = self.name
        if self.uid:
            out["uid"] = self.uid
        if self.groups:
            out["groups"] = list(self.groups)
        if self.extra:
            out["extra"] = {key: list(values) for key, values in self.extra.items()}
        return out


SYSTEM_API_SERVER = UserInfo(API_SERVER, (MASTERS, ALL_AUTHENTICATED))
ANONYMOUS_USER = UserInfo(ANONYMOUS, (ALL_UNAUTHENTICATED,))
