"""The pods of a Job: its template, the tracking finalizer and, in an Indexed Job, the index in all the places for it.

Pure. Called by controller.py.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from typing import Final

from api.models import batch_v1, core_v1, meta_v1
from client.listers import copied
from controller_manager.job.failures import (
    INDEX,
    INDEX_FAILURES,
    INDEX_IGNORED,
    Action,
    index_failures,
    index_ignored,
    judge,
)
from controller_manager.job.tally import FINALIZER
from controller_manager.objects import controller_reference

INDEX_VARIABLE: Final = "JOB_COMPLETION_INDEX"
_LONGEST_GENERATE_NAME: Final = 58


def pod_for(job: batch_v1.Job, index: int | None, failed: core_v1.Pod | None = None) -> core_v1.Pod:
    """A pod to create; `failed` is the one it replaces in an index with its own back-off limit."""
    name = job.metadata.name or ""
    template = job.spec.template
    given = template.metadata or meta_v1.ObjectMeta()
    labels, annotations = dict(given.labels or {}), dict(given.annotations or {})
    spec = copied(template.spec)
    prefix = f"{name}-"
    if index is not None:
        prefix = _indexed_prefix(name, index)
        labels[INDEX] = annotations[INDEX] = str(index)
        if job.spec.backoffLimitPerIndex is not None:
            annotations |= _failure_counts(job, failed)
        if spec is not None:
            spec.hostname = f"{name}-{index}"
            _add_variable(spec)
    return core_v1.Pod(
        metadata=meta_v1.ObjectMeta(
            generateName=prefix,
            namespace=job.metadata.namespace,
            labels=labels or None,
            annotations=annotations or None,
            finalizers=[*(each for each in given.finalizers or () if each != FINALIZER), FINALIZER],
            ownerReferences=[controller_reference(job)],
        ),
        spec=spec,
    )


def _indexed_prefix(name: str, index: int) -> str:
    suffix = f"-{index}-"
    return name[: _LONGEST_GENERATE_NAME - len(suffix)] + suffix


def _failure_counts(job: batch_v1.Job, failed: core_v1.Pod | None) -> dict[str, str]:
    if failed is None:
        return {INDEX_FAILURES: "0"}
    ignored = judge(job, failed).action is Action.IGNORE
    counts = {INDEX_FAILURES: str(index_failures(failed) + (not ignored))}
    if ignored or index_ignored(failed):
        counts[INDEX_IGNORED] = str(index_ignored(failed) + ignored)
    return counts


def _add_variable(spec: core_v1.PodSpec) -> None:
    path = f"metadata.labels['{INDEX}']"
    for container in [*(spec.initContainers or ()), *spec.containers]:
        if any(variable.name == INDEX_VARIABLE for variable in container.env or ()):
            continue
        source = core_v1.EnvVarSource(fieldRef=core_v1.ObjectFieldSelector(fieldPath=path))
        container.env = [*(container.env or ()), core_v1.EnvVar(name=INDEX_VARIABLE, valueFrom=source)]
