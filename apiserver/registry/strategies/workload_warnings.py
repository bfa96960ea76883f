"""Warnings about workloads: their names, their templates and what else of them surprises.

Never refuses anything. Looked up through the rules of the kinds.
"""

from collections.abc import Callable
from typing import Any

from apiserver.registry.strategies.pod_warnings import name_warnings, template_warnings
from apiserver.registry.validation.deprecations import claim_spec_warnings

Obj = dict[str, Any]
Warnings = Callable[[Obj, Obj | None], list[str]]

_NAMES = "Pod names and hostnames"
_MANY_COMPLETIONS, _MANY_AT_ONCE = 100_000, 10_000
_TOO_MANY = (
    "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, "
    "Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
)
_HISTORY = "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
_TIME_ZONE = (
    "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, "
    "see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
)


def of_template(*path: str, named: bool = False) -> Warnings:
    """Warnings about the template at `path`, new or when the generation changed; `named`: and a new name."""

    def warnings(obj: Obj, old: Obj | None) -> list[str]:
        found = name_warnings(obj, _NAMES) if named and old is None else []
        if not _changed(obj, old):
            return found
        template = obj
        for field in path:
            template = template.get(field) or {}
        return found + template_warnings(template, ".".join(path))

    return warnings


def stateful_set_warnings(obj: Obj, old: Obj | None) -> list[str]:
    """Warnings about a StatefulSet; the paths of claims are upstream's."""
    spec = obj.get("spec") or {}
    found = template_warnings(spec.get("template") or {}, "spec.template") if _changed(obj, old) else []
    for index, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
        path = f"spec.volumeClaimTemplates[{index}]" + ("" if old is None else ".Spec")
        found += claim_spec_warnings(claim.get("spec") or {}, path)
    if (spec.get("revisionHistoryLimit") or 0) < 0:
        found.append(_HISTORY)
    return found


def daemon_set_warnings(obj: Obj, old: Obj | None) -> list[str]:
    """Warnings about a DaemonSet whose template changed."""
    template = (obj.get("spec") or {}).get("template") or {}
    if old is not None and template == ((old.get("spec") or {}).get("template") or {}):
        return []
    return template_warnings(template, "spec.template")


def job_warnings(obj: Obj, old: Obj | None) -> list[str]:
    """Warnings about a Job."""
    found = name_warnings(obj, _NAMES) if old is None else []
    return found + _job_spec(obj.get("spec") or {}, "spec") if _changed(obj, old) else found


def cron_job_warnings(obj: Obj, old: Obj | None) -> list[str]:
    """Warnings about a CronJob."""
    spec = obj.get("spec") or {}
    found = name_warnings(obj, _NAMES) if old is None else []
    if _changed(obj, old):
        found += _job_spec((spec.get("jobTemplate") or {}).get("spec") or {}, "spec.jobTemplate.spec")
    if old is not None and "TZ" in (spec.get("schedule") or ""):
        found.append(_TIME_ZONE)
    return found


def _job_spec(spec: Obj, path: str) -> list[str]:
    found: list[str] = []
    many = (spec.get("completions") or 0) > _MANY_COMPLETIONS and (spec.get("parallelism") or 0) > _MANY_AT_ONCE
    if spec.get("completionMode") == "Indexed" and many:
        found.append(f"{path}: {_TOO_MANY}")
    return found + template_warnings(spec.get("template") or {}, f"{path}.template")


def _changed(obj: Obj, old: Obj | None) -> bool:
    """Is the object new, or its generation another?"""
    return old is None or obj["metadata"].get("generation") != old["metadata"].get("generation")
