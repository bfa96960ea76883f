"""Nobody grants what they do not hold.

Owns: the rule that a user may write a role only with permissions they have (or the verb `escalate`), and a binding
only to a role whose permissions they have (or the verb `bind`). An admission plugin of the registry: it sees writes of
rbac.authorization.k8s.io after defaulting, whatever door they came by.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from apiserver.auth.attributes import Attributes
from apiserver.auth.gate import Gate
from apiserver.auth.policy import RBAC
from apiserver.auth.rbac import RBACAuthorizer, Rule, rules_of
from apiserver.auth.user import MASTERS, UserInfo
from apiserver.registry.context import RequestContext
from machinery.errors import Forbidden, NotFound

if TYPE_CHECKING:
    from api.resources import Resource

Obj = Mapping[str, Any]

FULL_AUTHORITY = rules_of(
    {
        "rules": [
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
            {"verbs": ["*"], "nonResourceURLs": ["*"]},
        ]
    }
)
_COLLECTED = frozenset({"finalizers", "ownerReferences", "managedFields", "resourceVersion", "generation"})


class Atom(NamedTuple):
    """The smallest permission: one verb on one resource (or path), for one name or any ("")."""

    verb: str
    group: str
    resource: str
    name: str
    path: str = ""

    def rule(self, verbs: Sequence[str]) -> dict[str, Any]:
        """As a PolicyRule with these verbs."""
        if self.path:
            return {"verbs": list(verbs), "nonResourceURLs": [self.path]}
        rule: dict[str, Any] = {"verbs": list(verbs), "apiGroups": [self.group], "resources": [self.resource]}
        if self.name:
            rule["resourceNames"] = [self.name]
        return rule


def _quoted(values: Iterable[str]) -> str:
    return "[" + " ".join(f'"{value}"' for value in values) + "]"


def rule_text(rule: Obj) -> str:
    """A PolicyRule as upstream prints it in refusals."""
    fields = (
        ("APIGroups", "apiGroups"),
        ("Resources", "resources"),
        ("NonResourceURLs", "nonResourceURLs"),
        ("ResourceNames", "resourceNames"),
        ("Verbs", "verbs"),
    )
    return "{" + ", ".join(f"{shown}:{_quoted(rule[field])}" for shown, field in fields if rule.get(field)) + "}"


def atoms(rule: Rule) -> Iterator[Atom]:
    """A rule taken apart, in its own order."""
    source = rule.source
    verbs, groups, resources = (source.get(field) or () for field in ("verbs", "apiGroups", "resources"))
    names = source.get("resourceNames") or [""]
    for group, resource, verb, name in product(groups, resources, verbs, names):
        yield Atom(verb, group, resource, name)
    for path, verb in product(rule.paths, verbs):
        yield Atom(verb, "", "", "", path)


def holds(rule: Rule, atom: Atom) -> bool:
    """Does a held rule contain the atom, wildcards included?"""
    if "*" not in rule.verbs and atom.verb not in rule.verbs:
        return False
    if atom.path:
        return any(
            held in ("*", atom.path) or (held.endswith("*") and atom.path.startswith(held[:-1])) for held in rule.paths
        )
    if "*" not in rule.groups and atom.group not in rule.groups:
        return False
    _, slash, subresource = atom.resource.partition("/")
    named = atom.resource in rule.resources or (bool(slash) and f"*/{subresource}" in rule.resources)
    if not named and "*" not in rule.resources:
        return False
    return not rule.names or (atom.name != "" and atom.name in rule.names)


def missing_rules(held: Sequence[Rule], wanted: Iterable[Rule]) -> list[dict[str, Any]]:
    """The permissions wanted but not held, as PolicyRules of one resource each.

    Verbs are gathered where nothing but the verb differs and neither names nor paths are involved, as upstream does.
    """
    simple: dict[Atom, list[str]] = {}
    single: dict[Atom, None] = {}
    for rule in wanted:
        for atom in atoms(rule):
            if any(holds(each, atom) for each in held):
                continue
            if atom.name or atom.path:
                single[atom] = None
                continue
            verbs = simple.setdefault(atom._replace(verb=""), [])
            if atom.verb not in verbs:
                verbs.append(atom.verb)
    return [atom.rule([atom.verb]) for atom in single] + [atom.rule(verbs) for atom, verbs in simple.items()]


def missing(held: Sequence[Rule], wanted: Iterable[Rule]) -> list[str]:
    """The permissions wanted but not held, as sorted texts; empty when all are held."""
    return sorted({rule_text(rule) for rule in missing_rules(held, wanted)})


class EscalationCheck:
    """The admission plugin."""

    def __init__(self, gate: Gate, rbac: RBACAuthorizer) -> None:
        self._gate = gate
        self._rbac = rbac

    async def admit(
        self,
        ctx: RequestContext,
        op: str,
        resource: Resource,
        namespace: str,
        name: str,
        new: dict[str, Any] | None,
        old: dict[str, Any] | None,
        subresource: str,
    ) -> None:
        """Raises Forbidden or NotFound."""
        if resource.group != RBAC or new is None or MASTERS in ctx.user.groups:
            return
        if old is not None and _only_for_collection(new, old):
            return
        name = name or new["metadata"].get("name", "")
        if resource.plural in ("roles", "clusterroles"):
            self._check_role(ctx.user, resource, namespace, name, new, old)
        else:
            self._check_binding(ctx.user, resource, namespace, name, new)

    def _check_role(
        self, user: UserInfo, resource: Resource, namespace: str, name: str, new: Obj, old: Obj | None
    ) -> None:
        if self._may(user, "escalate", resource.plural, namespace, name):
            return
        self._refuse(user, resource, namespace, name, rules_of(new))
        # A role that gathers others may become anything, and may have been anything.
        aggregated = new.get("aggregationRule") or (old or {}).get("aggregationRule")
        if aggregated and missing(self._held(user, namespace), FULL_AUTHORITY):
            why = "must have cluster-admin privileges to use the aggregationRule"
            raise Forbidden.of(resource.plural, name, RBAC, why)

    def _check_binding(self, user: UserInfo, resource: Resource, namespace: str, name: str, new: Obj) -> None:
        reference = new.get("roleRef") or {}
        kind, role = reference.get("kind", ""), reference.get("name", "")
        plural = "roles" if kind == "Role" else "clusterroles"
        home = namespace if kind == "Role" else ""
        if self._may(user, "bind", plural, namespace, role):
            return
        rules = self._rbac.rules(kind, home, role)
        if rules is None:
            raise NotFound.of(resource.plural, role, RBAC)  # upstream names the kind that was asked for, too
        self._refuse(user, resource, namespace, name, rules)

    def _may(self, user: UserInfo, verb: str, plural: str, namespace: str, name: str) -> bool:
        asked = Attributes(
            verb=verb, is_resource=True, group=RBAC, version="v1", resource=plural, namespace=namespace, name=name
        )
        return self._gate.decide(user, asked).allowed

    def _held(self, user: UserInfo, namespace: str) -> list[Rule]:
        return [grant.rule for grant in self._rbac.grants(user, namespace)]

    def _refuse(self, user: UserInfo, resource: Resource, namespace: str, name: str, wanted: Sequence[Rule]) -> None:
        lacking = missing(self._held(user, namespace), wanted)
        if lacking:
            who = f'user "{user.name}" (groups={_quoted(user.groups)})'
            lines = "\n".join(lacking)
            why = f"{who} is attempting to grant RBAC permissions not currently held:\n{lines}"
            raise Forbidden.of(resource.plural, name, RBAC, why)


def _only_for_collection(new: Obj, old: Obj) -> bool:
    """Whether an update touches nothing but what the garbage collector needs; that must always be possible."""

    def rest(obj: Obj) -> dict[str, Any]:
        meta = {key: value for key, value in obj["metadata"].items() if key not in _COLLECTED}
        return {**obj, "metadata": meta}

    return rest(new) == rest(old)
