"""Which FlowSchema a request belongs to, and to which flow of it.

Owns: upstream's matching rules, in order of precedence and then name. Pure. Called by `control` once per kind of
request; the answer is kept there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apiserver.auth.attributes import Attributes
from apiserver.auth.user import SERVICE_ACCOUNT_PREFIX, UserInfo

Obj = Mapping[str, Any]
BY_USER, BY_NAMESPACE = "ByUser", "ByNamespace"


@dataclass(frozen=True)
class Schema:
    """A FlowSchema as far as requests see it."""

    name: str
    uid: str
    level: str
    precedence: int
    distinguisher: str
    rules: tuple[Obj, ...]

    def matches(self, user: UserInfo, asked: Attributes) -> bool:
        return any(_matches_rule(rule, user, asked) for rule in self.rules)

    def flow(self, user: UserInfo, namespace: str) -> str:
        """What tells this request's flow from others of the schema."""
        if self.distinguisher == BY_USER:
            return user.name
        return namespace if self.distinguisher == BY_NAMESPACE else ""


def schema_of(obj: Obj) -> Schema:
    """A stored FlowSchema, read."""
    spec = obj.get("spec") or {}
    return Schema(
        obj["metadata"]["name"],
        obj["metadata"].get("uid") or "",
        (spec.get("priorityLevelConfiguration") or {}).get("name") or "",
        spec.get("matchingPrecedence") or 1000,
        (spec.get("distinguisherMethod") or {}).get("type") or "",
        tuple(spec.get("rules") or ()),
    )


def in_order(schemas: Sequence[Schema]) -> list[Schema]:
    """The order in which they are tried."""
    return sorted(schemas, key=lambda schema: (schema.precedence, schema.name))


def _matches_rule(rule: Obj, user: UserInfo, asked: Attributes) -> bool:
    if not any(_matches_subject(subject, user) for subject in rule.get("subjects") or ()):
        return False
    if asked.is_resource:
        return any(_matches_resource(each, asked) for each in rule.get("resourceRules") or ())
    return any(_matches_path(each, asked) for each in rule.get("nonResourceRules") or ())


def _matches_subject(subject: Obj, user: UserInfo) -> bool:
    kind = subject.get("kind")
    if kind == "User":
        return (subject.get("user") or {}).get("name") in ("*", user.name)
    if kind == "Group":
        wanted = (subject.get("group") or {}).get("name")
        return wanted == "*" or wanted in user.groups
    if kind != "ServiceAccount" or not user.name.startswith(SERVICE_ACCOUNT_PREFIX):
        return False
    account = subject.get("serviceAccount") or {}
    namespace, _, name = user.name[len(SERVICE_ACCOUNT_PREFIX) :].partition(":")
    return account.get("namespace") == namespace and account.get("name") in ("*", name)


def _has(values: Sequence[str] | None, wanted: str) -> bool:
    return values is not None and ("*" in values or wanted in values)


def _matches_resource(rule: Obj, asked: Attributes) -> bool:
    if not (_has(rule.get("verbs"), asked.verb) and _has(rule.get("apiGroups"), asked.group)):
        return False
    combined = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
    if not _has(rule.get("resources"), combined):
        return False
    if not asked.namespace:
        return bool(rule.get("clusterScope"))
    return _has(rule.get("namespaces"), asked.namespace)


def _matches_path(rule: Obj, asked: Attributes) -> bool:
    if not _has(rule.get("verbs"), asked.verb):
        return False
    for spec in rule.get("nonResourceURLs") or ():
        if spec in ("*", asked.path) or (spec.endswith("/*") and asked.path.startswith(spec[:-1])):
            return True
    return False
