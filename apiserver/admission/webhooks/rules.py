"""Which hooks a write concerns: rules, selectors, match conditions. Pure, except for compiled expressions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from machinery.selectors import LabelSelector

if TYPE_CHECKING:
    from api.resources import Resource

Obj = Mapping[str, Any]

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


class Hook(NamedTuple):
    """One webhook of a configuration."""

    name: str
    configuration: str
    client: Obj
    rules: tuple[Obj, ...]
    namespaces: LabelSelector | None
    objects: LabelSelector | None
    conditions: tuple[Obj, ...]
    ignores_failure: bool
    safe_for_dry_run: bool
    reinvoked: bool
    timeout: float
    versions: tuple[str, ...]


def hooks_of(configuration: Obj) -> Iterator[Hook]:
    """The webhooks of a configuration in order."""
    for each in configuration.get("webhooks") or ():
        yield Hook(
            name=str(each.get("name") or ""),
            configuration=str(configuration["metadata"]["name"]),
            client=each.get("clientConfig") or {},
            rules=tuple(each.get("rules") or ()),
            namespaces=_selector(each.get("namespaceSelector")),
            objects=_selector(each.get("objectSelector")),
            conditions=tuple(each.get("matchConditions") or ()),
            ignores_failure=each.get("failurePolicy") == "Ignore",
            safe_for_dry_run=each.get("sideEffects") in ("None", "NoneOnDryRun"),
            reinvoked=each.get("reinvocationPolicy") == "IfNeeded",
            timeout=float(each.get("timeoutSeconds") or 10),
            versions=tuple(each.get("admissionReviewVersions") or ()),
        )


def _selector(given: Any) -> LabelSelector | None:
    return LabelSelector.from_object(given) if given else None


def never_asked(resource: Resource) -> bool:
    return resource.group == "admissionregistration.k8s.io" and resource.plural in NEVER_ASKED


def rule_matches(rule: Obj, op: str, resource: Resource, namespace: str, subresource: str) -> bool:
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


def selects(
    namespaces: LabelSelector | None,
    objects: LabelSelector | None,
    namespace_labels: Mapping[str, str] | None,
    new: Obj | None,
    old: Obj | None,
) -> bool:
    """Do the selectors choose this write? `namespace_labels` is None for what lives in no namespace."""
    if namespaces is not None and namespace_labels is not None and not namespaces.matches(namespace_labels):
        return False
    if objects is None:
        return True
    return any(
        objects.matches((each.get("metadata") or {}).get("labels") or {}) for each in (new, old) if each is not None
    )
