"""The table from resource to strategy: regular kinds are a row of `Rules`, irregular ones a class.

Owns which kind gets which rules and nothing else. A new regular kind is one row here. Called by `strategy_for`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from apiserver.registry.defaults import workloads as workload_defaults
from apiserver.registry.strategies.daemon_sets import DaemonSetStrategy
from apiserver.registry.strategies.jobs import JobStrategy
from apiserver.registry.strategies.pod_warnings import template_warnings
from apiserver.registry.strategies.pods import PodStrategy
from apiserver.registry.strategy import PLAIN, Rules, Strategy
from apiserver.registry.validation import batch, workloads
from apiserver.registry.validation.names import dns_label

if TYPE_CHECKING:
    from api.resources import Resource

Obj = dict[str, Any]


def _template_warnings(*path: str) -> Callable[[Obj, Obj | None], list[str]]:
    """Warnings about the pod template at `path`."""

    def at(obj: Obj | None) -> Obj:
        for field in path:
            obj = (obj or {}).get(field)
        return obj or {}

    return lambda obj, old: template_warnings(at(obj), at(old) if old is not None else None, ".".join(path))


_SPEC_TEMPLATE = _template_warnings("spec", "template")

_RULES: dict[tuple[str, str], Rules] = {
    ("apps", "deployments"): Rules(
        generation=True,
        has_status=True,
        new_status={},
        default=workload_defaults.default_deployment,
        validate=workloads.validate_deployment,
        validate_update=workloads.validate_deployment_update,
        validate_status=workloads.validate_workload_status,
        status_keeps=("labels",),
        warnings=_SPEC_TEMPLATE,
    ),
    ("apps", "replicasets"): Rules(
        generation=True,
        has_status=True,
        new_status={"replicas": 0},
        default=workload_defaults.default_replica_set,
        validate=workloads.validate_replica_set,
        validate_update=workloads.validate_replica_set_update,
        validate_status=workloads.validate_workload_status,
        warnings=_SPEC_TEMPLATE,
    ),
    ("apps", "statefulsets"): Rules(
        generation=True,
        has_status=True,
        name=dns_label,
        new_status={"replicas": 0, "availableReplicas": 0},
        default=workload_defaults.default_stateful_set,
        validate=workloads.validate_stateful_set,
        validate_update=workloads.validate_stateful_set_update,
        validate_status=workloads.validate_workload_status,
        warnings=_SPEC_TEMPLATE,
    ),
    ("apps", "controllerrevisions"): Rules(
        validate=workloads.validate_revision,
        validate_update=workloads.validate_revision_update,
    ),
    ("", "replicationcontrollers"): Rules(
        generation=True,
        has_status=True,
        new_status={"replicas": 0},
        default=workload_defaults.default_replication_controller,
        validate=workloads.validate_replication_controller,
        validate_status=workloads.validate_workload_status,
        fields={"status.replicas": lambda obj: str((obj.get("status") or {}).get("replicas") or 0)},
        warnings=_SPEC_TEMPLATE,
    ),
    ("", "podtemplates"): Rules(
        generation=True,
        desired_state=("template",),
        default=workload_defaults.default_pod_template,
        validate=workloads.validate_pod_template,
        warnings=_template_warnings("template"),
    ),
    ("batch", "cronjobs"): Rules(
        generation=True,
        has_status=True,
        new_status={},
        default=workload_defaults.default_cron_job,
        validate=batch.validate_cron_job,
        validate_update=batch.validate_cron_job_update,
        warnings=_template_warnings("spec", "jobTemplate", "spec", "template"),
    ),
}
_CLASSES: dict[tuple[str, str], type[Strategy]] = {
    ("", "pods"): PodStrategy,
    ("apps", "daemonsets"): DaemonSetStrategy,
    ("batch", "jobs"): JobStrategy,
}


def build(resource: "Resource") -> Strategy:
    """A new strategy for the resource; unknown kinds get the generic one."""
    key = (resource.group, resource.plural)
    kind = _CLASSES.get(key, Strategy)
    return kind(resource, _RULES.get(key, PLAIN if kind is Strategy else None))
