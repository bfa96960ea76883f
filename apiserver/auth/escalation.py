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


class Atom(NamedTuple):
    """The smallest permission: one verb on one resource (or path), for one name or any ("")."""

    verb: str
    group: str
    resource: str
    name: str
    path: str = ""

    def text(self, verbs: Sequence[str]) -> str:
        """As upstream prints a rule."""
        shown = _quoted(verbs)
        if self.path:
            return f"{{NonResourceURLs:{_quoted([self.path])}, Verbs:{shown}}}"
        names = f"ResourceNames:{_quoted([self.name])}, " if self.name else ""
        return f"{{APIGroups:{_quoted([self.group])}, Resources:{_quoted([self.resource])}, {names}Verbs:{shown}}}"


def _quoted(values: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{value}"' for value in values) + "]"


def atoms(rule: Rule) -> Iterator[Atom]:
    """A rule taken apart."""
    names = sorted(rule.names) or [""]
    for verb, group, resource, name in product(sorted(rule.verbs), sorted(rule.groups), sorted(rule.resources), names):
        yield Atom(verb, group, resource, name)
    for verb, path in product(sorted(rule.verbs), rule.paths):
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


def missing(held: Sequence[Rule], wanted: Iterable[Rule]) -> list[str]:
    """The permissions wanted but not held, as text, verbs gathered; empty when all are held."""
    found: dict[Atom, list[str]] = {}
    for rule in wanted:
        for atom in atoms(rule):
            if not any(holds(each, atom) for each in held):
                verbs = found.setdefault(atom._replace(verb=""), [])
                if atom.verb not in verbs:
                    verbs.append(atom.verb)
    return sorted(atom.text(verbs) for atom, verbs in found.items())


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
        name = name or new["metadata"].get("name", "")
        if resource.plural in ("roles", "clusterroles"):
            self._check_role(ctx.user, resource, namespace, name, new, old)
        else:
            self._check_binding(ctx.user, resource, namespace, name, new, old)

    def _check_role(
        self, user: UserInfo, resource: Resource, namespace: str, name: str, new: Obj, old: Obj | None
    ) -> None:
        fields = ("rules", "aggregationRule")
        if old is not None and all((old.get(field) or None) == (new.get(field) or None) for field in fields):
            return
        if self._may(user, "escalate", resource.plural, namespace, name):
            return
        wanted = rules_of(new)
        if new.get("aggregationRule"):  # its rules may become anything
            everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
            wanted += rules_of({"rules": [everything, {"verbs": ["*"], "nonResourceURLs": ["*"]}]})
        self._refuse(user, resource, namespace, name, wanted)

    def _check_binding(
        self, user: UserInfo, resource: Resource, namespace: str, name: str, new: Obj, old: Obj | None
    ) -> None:
        if old is not None and all(old.get(field) == new.get(field) for field in ("roleRef", "subjects")):
            return
        reference = new.get("roleRef") or {}
        kind, role = reference.get("kind", ""), reference.get("name", "")
        plural = "roles" if kind == "Role" else "clusterroles"
        home = namespace if kind == "Role" else ""
        if self._may(user, "bind", plural, namespace, role):
            return
        rules = self._rbac.rules(kind, home, role)
        if rules is None:
            raise NotFound.of(resource.plural, role, RBAC)
        self._refuse(user, resource, namespace, name, rules)

    def _may(self, user: UserInfo, verb: str, plural: str, namespace: str, name: str) -> bool:
        asked = Attributes(
            verb=verb, is_resource=True, group=RBAC, version="v1", resource=plural, namespace=namespace, name=name
        )
        return self._gate.decide(user, asked).allowed

    def _refuse(self, user: UserInfo, resource: Resource, namespace: str, name: str, wanted: Sequence[Rule]) -> None:
        held = [grant.rule for grant in self._rbac.grants(user, namespace)]
        lacking = missing(held, wanted)
        if lacking:
            who = f'user "{user.name}" (groups={_quoted(user.groups)})'
            lines = "\n".join(lacking)
            why = f"{who} is attempting to grant RBAC permissions not currently held:\n{lines}"
            raise Forbidden.of(resource.plural, name, RBAC, why)
