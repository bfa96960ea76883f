"""The webhooks of a configuration, as values. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from apiserver.admission.matching import selector
from machinery.selectors import LabelSelector

Obj = Mapping[str, Any]


class Hook(NamedTuple):
    """One webhook of a configuration."""

    name: str
    configuration: str
    client: Obj
    rules: tuple[Obj, ...]
    namespaces: LabelSelector | None
    objects: LabelSelector | None
    conditions: tuple[Obj, ...]
    match_policy: str
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
            namespaces=selector(each.get("namespaceSelector")),
            objects=selector(each.get("objectSelector")),
            conditions=tuple(each.get("matchConditions") or ()),
            match_policy=str(each.get("matchPolicy") or "Equivalent"),
            ignores_failure=each.get("failurePolicy") == "Ignore",
            safe_for_dry_run=each.get("sideEffects") in ("None", "NoneOnDryRun"),
            reinvoked=each.get("reinvocationPolicy") == "IfNeeded",
            timeout=float(each.get("timeoutSeconds") or 10),
            versions=tuple(each.get("admissionReviewVersions") or ()),
        )
