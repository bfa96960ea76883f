"""Which hooks and policies a write concerns: rules, equivalent versions, selectors. Pure, but for reading caches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from apiserver.admission.write import Write, equivalents, namespace_labels
from apiserver.registry.store import Registry
from machinery.selectors import LabelSelector

if TYPE_CHECKING:
    from api.resources import Resource

Rule = Mapping[str, Any]

NEVER_ASKED = frozenset(
    {
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
    }
)
"""Of admissionregistration.k8s.io: a broken hook must not keep anybody from removing it."""
_REVIEWS = frozenset({"authentication.k8s.io", "authorization.k8s.io"})


def never_asked(resource: Resource, *, policy: bool = False) -> bool:
    """Are hooks never asked about such objects? Policies besides leave reviews of identities and rights alone."""
    if resource.group == "admissionregistration.k8s.io":
        return resource.plural in NEVER_ASKED
    return policy and resource.group in _REVIEWS


def rule_matches(rule: Rule, op: str, resource: Resource, namespace: str, subresource: str) -> bool:
    """Does a rule (RuleWithOperations) name this write?"""
    scope = rule.get("scope") or "*"
    # A namespace object is not inside itself.
    inside = bool(namespace) and resource.namespaced
    if scope != "*" and (scope == "Namespaced") != inside:
        return False
    return (
        _named(op, rule.get("operations"))
        and _named(resource.group, rule.get("apiGroups"))
        and _named(resource.version, rule.get("apiVersions"))
        and any(_resource_named(each, resource.plural, subresource) for each in rule.get("resources") or ())
    )


def _named(value: str, names: Any) -> bool:
    return "*" in (names or ()) or value in (names or ())


def _resource_named(pattern: str, plural: str, subresource: str) -> bool:
    name, _, part = pattern.partition("/")
    return name in ("*", plural) and part in ("*", subresource) if part or subresource else name in ("*", plural)


def chosen_version(
    registry: Registry, rules: Iterable[Rule], match_policy: str, write: Write, wanted: Callable[[Rule], bool]
) -> Resource | None:
    """The version in which the rules name the write: its own, or by policy Equivalent another one; None: not at all."""
    listed = [rule for rule in rules if wanted(rule)]
    if any(rule_matches(rule, write.op, write.sent, write.namespace, write.subresource) for rule in listed):
        return write.sent
    if match_policy == "Exact" or not listed:
        return None
    for other in equivalents(registry, write.sent):
        if any(rule_matches(rule, write.op, other, write.namespace, write.subresource) for rule in listed):
            return other
    return None


def selects(
    namespaces: LabelSelector | None,
    objects: LabelSelector | None,
    namespace_labels: Mapping[str, str] | None,
    new: Mapping[str, Any] | None,
    old: Mapping[str, Any] | None,
) -> bool:
    """Do the selectors choose this write? `namespace_labels` is None for what lives in no namespace."""
    if namespaces is not None and namespace_labels is not None and not namespaces.matches(namespace_labels):
        return False
    if objects is None:
        return True
    return any(
        objects.matches((each.get("metadata") or {}).get("labels") or {}) for each in (new, old) if each is not None
    )


def selector(given: Any) -> LabelSelector | None:
    return LabelSelector.from_object(given) if given else None


def matched(registry: Registry, chosen: Mapping[str, Any], write: Write) -> Resource | None:
    """The version in which a MatchResources chooses the write, or None. Without rules it chooses all."""
    policy = str(chosen.get("matchPolicy") or "Equivalent")

    def named(rule: Rule) -> bool:
        names = rule.get("resourceNames")
        return not names or write.name in names

    if chosen_version(registry, chosen.get("excludeResourceRules") or (), policy, write, named) is not None:
        return None
    found: Resource | None = write.sent
    if chosen.get("resourceRules"):
        found = chosen_version(registry, chosen["resourceRules"], policy, write, named)
    if found is None:
        return None
    given = selector(chosen.get("namespaceSelector")), selector(chosen.get("objectSelector"))
    return found if selects(*given, namespace_labels(registry, write), write.new, write.old) else None
