"""Role-based access control over Role, ClusterRole and their bindings.

Owns: the index of rules by subject and the decisions made from it. Objects are pushed in by the feed (`put`,
`remove`); nothing here reads the store. Called on every request, so a decision is one dictionary lookup once it has
been made; any change of a role or binding forgets all decisions. Aggregated ClusterRoles are resolved here, at index
time, so that `admin`, `edit` and `view` work whether or not a controller fills them in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from apiserver.auth.attributes import NO_OPINION, Attributes, Decision
from apiserver.auth.user import SERVICE_ACCOUNT_PREFIX, UserInfo
from machinery.caching import is_short
from machinery.selectors import LabelSelector

CACHE_LIMIT = 50_000
KINDS = ("roles", "clusterroles", "rolebindings", "clusterrolebindings")


class Rule(NamedTuple):
    """A PolicyRule made for membership tests."""

    verbs: frozenset[str]
    groups: frozenset[str]
    resources: frozenset[str]
    names: frozenset[str]
    paths: tuple[str, ...]
    source: Mapping[str, Any]

    def has_verb(self, verb: str) -> bool:
        return "*" in self.verbs or verb in self.verbs

    def covers(self, verb: str, group: str, resource: str, subresource: str) -> bool:
        """True when the rule allows the verb on some name of the resource."""
        if not self.resources or not self.has_verb(verb):
            return False
        if "*" not in self.groups and group not in self.groups:
            return False
        if "*" in self.resources:
            return True
        if not subresource:
            return resource in self.resources
        return f"{resource}/{subresource}" in self.resources or f"*/{subresource}" in self.resources

    def covers_path(self, verb: str, path: str) -> bool:
        if not self.paths or not self.has_verb(verb):
            return False
        return any(
            pattern == "*" or pattern == path or (pattern.endswith("*") and path.startswith(pattern[:-1]))
            for pattern in self.paths
        )


class Binding(NamedTuple):
    name: str
    namespace: str  # empty: ClusterRoleBinding
    role_kind: str
    role: str
    subject: str  # how reasons name the subject

    def reason(self) -> str:
        kind = "RoleBinding" if self.namespace else "ClusterRoleBinding"
        name = f"{self.name}/{self.namespace}" if self.namespace else self.name
        return f'RBAC: allowed by {kind} "{name}" of {self.role_kind} "{self.role}" to {self.subject}'


class Grant(NamedTuple):
    rule: Rule
    binding: Binding


class _Verdict(NamedTuple):
    """A decision for any name: `always` when no rule needs a name, else by name."""

    always: Decision | None
    by_name: Mapping[str, Decision]


Subject = tuple[str, str]  # ("User" | "Group", name)
ObjectName = tuple[str, str]  # (namespace, name)


def rules_of(obj: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules of a Role or ClusterRole object; malformed parts are left out."""
    found = []
    for rule in obj.get("rules") or ():
        fields = (rule.get(key) or () for key in ("verbs", "apiGroups", "resources", "resourceNames"))
        verbs, groups, resources, names = (frozenset(values) for values in fields)
        found.append(Rule(verbs, groups, resources, names, tuple(rule.get("nonResourceURLs") or ()), rule))
    return tuple(found)


class RBACAuthorizer:
    """Decides from the roles and bindings it was given. Deny is never final: it has no opinion."""

    def __init__(self) -> None:
        self._roles: dict[tuple[str, str, str], Mapping[str, Any]] = {}  # (kind, namespace, name) -> object
        self._rules: dict[tuple[str, str, str], tuple[Rule, ...]] = {}
        self._bindings: dict[ObjectName, Mapping[str, Any]] = {}
        self._by_subject: dict[Subject, dict[str, list[Binding]]] = {}  # subject -> namespace -> bindings
        self._stale = True
        self._verdicts: dict[tuple[Any, ...], _Verdict] = {}
        self._grants: dict[tuple[UserInfo, str], tuple[Grant, ...]] = {}

    # The feed's side.

    def put(self, plural: str, obj: Mapping[str, Any]) -> None:
        """A role or binding was created or changed."""
        meta = obj["metadata"]
        namespace, name = meta.get("namespace", ""), meta["name"]
        if plural in ("roles", "clusterroles"):
            kind = "Role" if plural == "roles" else "ClusterRole"
            self._roles[(kind, namespace, name)] = obj
        else:
            self._bindings[(namespace, name)] = obj
        self._forget()

    def remove(self, plural: str, namespace: str, name: str) -> None:
        """A role or binding is gone."""
        if plural in ("roles", "clusterroles"):
            self._roles.pop(("Role" if plural == "roles" else "ClusterRole", namespace, name), None)
        else:
            self._bindings.pop((namespace, name), None)
        self._forget()

    def replace(self, plural: str, objects: Iterable[Mapping[str, Any]]) -> None:
        """All objects of one kind, after a list."""
        if plural in ("roles", "clusterroles"):
            kind = "Role" if plural == "roles" else "ClusterRole"
            self._roles = {key: obj for key, obj in self._roles.items() if key[0] != kind}
        else:
            namespaced = plural == "rolebindings"
            self._bindings = {key: obj for key, obj in self._bindings.items() if bool(key[0]) != namespaced}
        for obj in objects:
            self.put(plural, obj)
        self._forget()

    def _forget(self) -> None:
        self._stale = True
        self._verdicts.clear()
        self._grants.clear()

    # The doors' side.

    def decide(self, user: UserInfo, attributes: Attributes) -> Decision:
        """Allowed with a reason, or no opinion."""
        if self._stale:
            self._index()
        if attributes.is_resource:
            verb, group, resource = attributes.verb, attributes.group, attributes.resource
            key: tuple[Any, ...] = (user, verb, group, resource, attributes.subresource, attributes.namespace)
            verdict = self._verdicts.get(key)
            if verdict is None:
                verdict = self._remember(key, self._judge(user, attributes))
        else:
            key = (user, attributes.verb, attributes.path)
            verdict = self._verdicts.get(key)
            if verdict is None:
                verdict = self._remember(key, self._judge_path(user, attributes))
        if verdict.always is not None:
            return verdict.always
        return verdict.by_name.get(attributes.name, NO_OPINION)

    def grants(self, user: UserInfo, namespace: str) -> tuple[Grant, ...]:
        """Every rule that counts for a user in a namespace ("" = cluster scope only)."""
        if self._stale:
            self._index()
        key = (user, namespace)
        found = self._grants.get(key)
        if found is None:
            found = tuple(self._resolve(user, namespace))
            if is_short(user.name, *user.groups, namespace):
                if len(self._grants) > CACHE_LIMIT:
                    self._grants.clear()
                self._grants[key] = found
        return found

    def rules(self, kind: str, namespace: str, name: str) -> tuple[Rule, ...] | None:
        """The rules of one role, aggregation included; None when it does not exist."""
        if self._stale:
            self._index()
        return self._rules.get((kind, namespace, name))

    # How decisions are made.

    def _remember(self, key: tuple[Any, ...], verdict: _Verdict) -> _Verdict:
        user: UserInfo = key[0]
        if is_short(user.name, *user.groups, *key[1:]):
            if len(self._verdicts) > CACHE_LIMIT:
                self._verdicts.clear()
            self._verdicts[key] = verdict
        return verdict

    def _judge(self, user: UserInfo, asked: Attributes) -> _Verdict:
        by_name: dict[str, Decision] = {}
        for rule, binding in self.grants(user, asked.namespace):
            if rule.covers(asked.verb, asked.group, asked.resource, asked.subresource):
                if not rule.names:
                    return _Verdict(Decision(True, binding.reason()), {})
                for name in rule.names:
                    by_name.setdefault(name, Decision(True, binding.reason()))
        return _Verdict(None if by_name else NO_OPINION, by_name)

    def _judge_path(self, user: UserInfo, asked: Attributes) -> _Verdict:
        for rule, binding in self.grants(user, ""):
            if rule.covers_path(asked.verb, asked.path):
                return _Verdict(Decision(True, binding.reason()), {})
        return _Verdict(NO_OPINION, {})

    def _resolve(self, user: UserInfo, namespace: str) -> Iterator[Grant]:
        subjects: list[Subject] = [("User", user.name), *(("Group", group) for group in user.groups)]
        for scope in ("", namespace) if namespace else ("",):
            for subject in subjects:
                for binding in self._by_subject.get(subject, {}).get(scope, ()):
                    role_namespace = binding.namespace if binding.role_kind == "Role" else ""
                    for rule in self._rules.get((binding.role_kind, role_namespace, binding.role), ()):
                        yield Grant(rule, binding)

    def _index(self) -> None:
        self._stale = False
        self._rules = {key: rules_of(obj) for key, obj in self._roles.items()}
        self._aggregate()
        self._by_subject = {}
        for (namespace, name), obj in sorted(self._bindings.items()):
            ref = obj.get("roleRef") or {}
            for subject in obj.get("subjects") or ():
                key = _subject_key(subject, namespace)
                if key is not None:
                    shown = _subject_text(subject, namespace)
                    binding = Binding(name, namespace, ref.get("kind", ""), ref.get("name", ""), shown)
                    self._by_subject.setdefault(key, {}).setdefault(namespace, []).append(binding)

    def _aggregate(self) -> None:
        """Give aggregated ClusterRoles the rules of those they select; twice, as `admin` selects `edit`'s parts."""
        aggregated = [
            (key, obj["aggregationRule"].get("clusterRoleSelectors") or ())
            for key, obj in self._roles.items()
            if obj.get("aggregationRule")
        ]
        for _ in range(3):
            for key, selectors in aggregated:
                parsed = [LabelSelector.from_object(selector) for selector in selectors]
                found = dict.fromkeys(id(rule) for rule in self._rules[key])
                rules = list(self._rules[key])
                for other, obj in self._roles.items():
                    if other == key or other[0] != "ClusterRole":
                        continue
                    labels = obj["metadata"].get("labels")
                    if any(selector.matches(labels) for selector in parsed):
                        rules += [rule for rule in self._rules[other] if id(rule) not in found]
                        found.update(dict.fromkeys(id(rule) for rule in self._rules[other]))
                self._rules[key] = tuple(rules)


def _subject_key(subject: Mapping[str, Any], namespace: str) -> Subject | None:
    kind, name = subject.get("kind"), subject.get("name", "")
    if kind == "ServiceAccount":
        owner = subject.get("namespace") or namespace
        return ("User", f"{SERVICE_ACCOUNT_PREFIX}{owner}:{name}") if owner else None
    return (kind, name) if kind in ("User", "Group") else None


def _subject_text(subject: Mapping[str, Any], namespace: str) -> str:
    name = subject.get("name", "")
    if subject.get("kind") == "ServiceAccount":
        return f'ServiceAccount "{name}/{subject.get("namespace") or namespace}"'
    return f'{subject.get("kind")} "{name}"'
