"""Defaults of the kinds that make pods: apps, batch, replication controllers, pod templates.

Called by the strategies of those kinds.
"""

from typing import Any

from apiserver.registry.defaults.pod import default_template
from apiserver.registry.defaults.storage import default_claim

Obj = dict[str, Any]
_MAX_INT32 = 2**31 - 1


def default_deployment(obj: Obj) -> None:
    """apps/v1 Deployment."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    default_template(spec.setdefault("template", {}))
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)


def default_replica_set(obj: Obj) -> None:
    """apps/v1 ReplicaSet."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    default_template(spec.setdefault("template", {}))


def default_stateful_set(obj: Obj) -> None:
    """apps/v1 StatefulSet."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    default_template(spec.setdefault("template", {}))
    spec.setdefault("podManagementPolicy", "OrderedReady")
    strategy = spec.setdefault("updateStrategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
    retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    retention.setdefault("whenDeleted", "Retain")
    retention.setdefault("whenScaled", "Retain")
    spec.setdefault("revisionHistoryLimit", 10)
    for claim in spec.get("volumeClaimTemplates") or ():
        claim["kind"], claim["apiVersion"] = "PersistentVolumeClaim", "v1"
        claim.setdefault("metadata", {})
        default_claim(claim)
        claim.setdefault("status", {}).setdefault("phase", "Pending")


def default_daemon_set(obj: Obj) -> None:
    """apps/v1 DaemonSet."""
    spec = obj.setdefault("spec", {})
    default_template(spec.setdefault("template", {}))
    strategy = spec.setdefault("updateStrategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)
    spec.setdefault("revisionHistoryLimit", 10)


def default_replication_controller(obj: Obj) -> None:
    """v1 ReplicationController: selector and labels follow the template's labels."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    if (template := spec.get("template")) is None:
        return
    default_template(template)
    if labels := template["metadata"].get("labels"):
        if not spec.get("selector"):
            spec["selector"] = dict(labels)
        if not obj["metadata"].get("labels"):
            obj["metadata"]["labels"] = dict(labels)


def default_pod_template(obj: Obj) -> None:
    """v1 PodTemplate."""
    default_template(obj.setdefault("template", {}))


def default_job(obj: Obj) -> None:
    """batch/v1 Job."""
    spec = obj.setdefault("spec", {})
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = spec["parallelism"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", _MAX_INT32 if spec.get("backoffLimitPerIndex") is not None else 6)
    template = spec.setdefault("template", {})
    default_template(template)
    if (labels := template["metadata"].get("labels")) and not obj["metadata"].get("labels"):
        obj["metadata"]["labels"] = dict(labels)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    if policy := spec.get("podFailurePolicy"):
        for rule in policy.get("rules") or ():
            for pattern in rule.get("onPodConditions") or ():
                pattern.setdefault("status", "True")
    default = "TerminatingOrFailed" if "podFailurePolicy" not in spec else "Failed"
    spec.setdefault("podReplacementPolicy", default)


def default_cron_job(obj: Obj) -> None:
    """batch/v1 CronJob; the job template gets pod defaults only."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("concurrencyPolicy", "Allow")
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)
    job = spec.setdefault("jobTemplate", {})
    job.setdefault("metadata", {})
    job_spec = job.setdefault("spec", {})
    default_template(job_spec.setdefault("template", {}))
    if policy := job_spec.get("podFailurePolicy"):
        for rule in policy.get("rules") or ():
            for pattern in rule.get("onPodConditions") or ():
                pattern.setdefault("status", "True")
