"""Jobs and cron jobs.

Called by their strategies.
"""

from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.fields import (
    check_domain_prefixed_path,
    check_enum,
    check_immutable,
    check_label_selector,
    check_not_negative,
    unsupported,
)
from apiserver.registry.validation.job_policies import validate_failure_policy, validate_success_policy
from apiserver.registry.validation.metadata import IMMUTABLE
from apiserver.registry.validation.pod import validate_template
from apiserver.registry.validation.pod_dump import template_value
from apiserver.registry.validation.schedule import schedule_error
from apiserver.registry.validation.workloads import validate_template_labels
from machinery.caching import keep_short
from machinery.field_errors import FieldError
from machinery.selectors import LabelSelector

Obj = dict[str, Any]
CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
JOB_NAME = "batch.kubernetes.io/job-name"
_COUNTS = (
    "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished",
    "backoffLimitPerIndex", "maxFailedIndexes",
)  # fmt: skip
_NOT_GENERATED = "`selector` not auto-generated"
_MANY, _FEW, _MANAGER = 100_000, 10_000, 63


def validate_job(obj: Obj) -> list[FieldError]:
    """batch/v1 Job as created."""
    spec = obj.get("spec") or {}
    errors = _generated(obj) + validate_job_spec(spec, "spec", selects=True)
    if spec.get("completionMode") == "Indexed" and (completions := spec.get("completions") or 0) > 0:
        name = obj["metadata"].get("name") or ""
        last = f"{name}-{completions - 1}"
        if names.dns_label(last):
            detail = f"will not able to create pod with invalid DNS name: {last}"
            errors.append(FieldError.invalid("metadata.name", name, detail))
    return errors


def _generated(obj: Obj) -> list[FieldError]:
    """The selector and the labels of the pods are the server's unless the client asked to choose them."""
    spec, meta = obj.get("spec") or {}, obj["metadata"]
    if spec.get("manualSelector") or (selector := spec.get("selector")) is None:
        return []
    uid, name, path = meta.get("uid") or "", meta.get("name") or "", "spec.template.metadata.labels"
    expected = {CONTROLLER_UID: uid, JOB_NAME: name, "controller-uid": uid, "job-name": name}
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    errors: list[FieldError] = []
    for key, value in expected.items():
        if key not in labels:
            errors.append(FieldError.required(f"{path}[{key}]", f"must be '{value}'"))
        elif labels[key] != value:
            errors.append(FieldError.invalid(f"{path}[{key}]", labels, f"must be '{value}'"))
    try:
        fits = LabelSelector.from_object(selector).matches(expected)
    except ValueError:  # the selector's own findings tell
        return errors
    return errors if fits else [*errors, FieldError.invalid("spec.selector", selector, _NOT_GENERATED)]


def validate_job_spec(spec: Obj, path: str, *, selects: bool) -> list[FieldError]:
    """A JobSpec; `selects`: it has a selector (the template of a CronJob has none)."""
    errors: list[FieldError] = []
    for field in _COUNTS:
        errors += check_not_negative(f"{path}.{field}", spec.get(field))
    if (manager := spec.get("managedBy")) is not None:
        errors += _validate_manager(manager, f"{path}.managedBy")
    mode = spec.get("completionMode")
    if mode is not None and mode not in ("NonIndexed", "Indexed"):
        errors.append(unsupported(f"{path}.completionMode", mode, ("NonIndexed", "Indexed")))
    if mode == "Indexed":
        errors += _validate_indexed(spec, path)
    else:
        errors += [
            FieldError.invalid(f"{path}.{field}", spec[field], "requires indexed completion mode")
            for field in ("backoffLimitPerIndex", "maxFailedIndexes")
            if spec.get(field) is not None
        ]
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        errors.append(FieldError.required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    policy = spec.get("podFailurePolicy")
    if policy is not None:
        errors += validate_failure_policy(spec, policy, f"{path}.podFailurePolicy")
    if (success := spec.get("successPolicy")) is not None:
        errors += validate_success_policy(spec, success, f"{path}.successPolicy")
    errors += _validate_replacement(spec, path)
    template = spec.get("template") or {}
    at = f"{path}.template"
    errors += validate_template(template, at)
    errors += _validate_restart_policy(template.get("spec") or {}, f"{at}.spec", policy is not None)
    if selects:
        selector = spec.get("selector")
        if selector is None:
            errors.append(FieldError.required(f"{path}.selector"))
        errors += check_label_selector(f"{path}.selector", selector)
        errors += validate_template_labels(selector, template, at)
    return errors


def _validate_manager(manager: str, path: str) -> list[FieldError]:
    errors = check_domain_prefixed_path(path, manager)
    return errors + ([FieldError.too_long(path, _MANAGER)] if len(manager) > _MANAGER else [])


def _validate_indexed(spec: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    completions, parallelism, failed = (spec.get(f) for f in ("completions", "parallelism", "maxFailedIndexes"))
    if completions is None:
        errors.append(FieldError.required(f"{path}.completions", "when completion mode is Indexed"))
    if (parallelism or 0) > _MANY:
        detail = f"must be less than or equal to {_MANY} when completion mode is Indexed"
        errors.append(FieldError.invalid(f"{path}.parallelism", parallelism, detail))
    if completions is not None and failed is not None and failed > completions:
        detail = "must be less than or equal to completions"
        errors.append(FieldError.invalid(f"{path}.maxFailedIndexes", failed, detail))
    if (failed or 0) > _MANY:
        errors.append(FieldError.invalid(f"{path}.maxFailedIndexes", failed, f"must be less than or equal to {_MANY}"))
    if (completions or 0) > _MANY and spec.get("backoffLimitPerIndex") is not None:
        if failed is None:
            detail = f"must be specified when completions is above {_MANY}"
            errors.append(FieldError.required(f"{path}.maxFailedIndexes", detail))
        detail = f"must be less than or equal to {_FEW} when completions are above {_MANY} and used with backoff limit"
        errors += [
            FieldError.invalid(f"{path}.{field}", value, f"{detail} per index")
            for field, value in (("parallelism", parallelism), ("maxFailedIndexes", failed))
            if (value or 0) > _FEW
        ]
    return errors


def _validate_restart_policy(pods: Obj, path: str, has_failure_policy: bool) -> list[FieldError]:
    restart = pods.get("restartPolicy")
    where = f"{path}.restartPolicy"
    if restart in (None, "", "Always"):
        # Always is what defaulting fills in, so the client has not chosen.
        return [FieldError.required(where, 'valid values: "OnFailure", "Never"')]
    if restart not in ("OnFailure", "Never"):
        return [unsupported(where, restart, ("OnFailure", "Never"))]
    if has_failure_policy and restart != "Never":
        return [FieldError.invalid(where, restart, 'only "Never" is supported when podFailurePolicy is specified')]
    return []


def _validate_replacement(spec: Obj, path: str) -> list[FieldError]:
    policy = spec.get("podReplacementPolicy")
    if policy is None:
        return []
    valid = ("Failed",) if spec.get("podFailurePolicy") is not None else ("Failed", "TerminatingOrFailed")
    return check_enum(f"{path}.podReplacementPolicy", policy, valid)


_SUSPENDED_MUTABLE = ("nodeSelector", "affinity", "tolerations", "schedulingGates")


def _comparable(template: Obj, loose: bool) -> Obj:
    if not loose:
        return template
    meta = {
        key: value for key, value in (template.get("metadata") or {}).items() if key not in ("labels", "annotations")
    }
    spec = {key: value for key, value in (template.get("spec") or {}).items() if key not in _SUSPENDED_MUTABLE}
    return {"metadata": meta, "spec": spec}


def validate_job_update(new: Obj, old: Obj) -> list[FieldError]:
    """Only counts, deadlines and suspension change; an unstarted suspended job may be placed elsewhere."""
    after, before = new["spec"], old["spec"]
    errors = validate_job_spec(after, "spec", selects=True) if after != before else []
    errors += _validate_completions(after, before)
    errors += check_immutable("spec.selector", after.get("selector"), before.get("selector"))
    loose = bool(before.get("suspend")) and not (old.get("status") or {}).get("startTime")
    if _comparable(after.get("template") or {}, loose) != _comparable(before.get("template") or {}, loose):
        errors.append(FieldError.invalid("spec.template", template_value(after.get("template") or {}), IMMUTABLE))
    for field in ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"):
        errors += check_immutable(f"spec.{field}", after.get(field), before.get(field))
    return errors


def _validate_completions(after: Obj, before: Obj) -> list[FieldError]:
    if after.get("completionMode") != "Indexed":
        return check_immutable("spec.completions", after.get("completions"), before.get("completions"))
    completions, parallelism = after.get("completions"), after.get("parallelism")
    was, was_parallel = before.get("completions"), before.get("parallelism")
    if completions == was:
        return []
    if completions is None:
        return [FieldError.required("spec.completions", "cannot be cleared when in Indexed mode")]
    if completions != parallelism or was != was_parallel:
        detail = "can only be modified in tandem with spec.parallelism"
        return [FieldError.invalid("spec.completions", completions, detail)]
    return []


def validate_job_status(new: Obj, old: Obj) -> list[FieldError]:
    """Counts of a job's status."""
    status = new.get("status") or {}
    errors: list[FieldError] = []
    for field in ("active", "succeeded", "failed", "ready", "terminating"):
        errors += check_not_negative(f"status.{field}", status.get(field))
    ready, active = status.get("ready"), status.get("active") or 0
    if ready is not None and ready > active:
        errors.append(FieldError.invalid("status.ready", ready, "cannot set more ready pods than active"))
    return errors


def validate_cron_job(obj: Obj) -> list[FieldError]:
    """batch/v1 CronJob."""
    errors: list[FieldError] = []
    name = obj["metadata"].get("name") or ""
    if len(name) > 52:  # jobs get a suffix of eleven characters
        errors.append(FieldError.invalid("metadata.name", name, "must be no more than 52 characters"))
    return errors + _validate_cron_spec(obj.get("spec") or {})


def _validate_cron_spec(spec: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    schedule = spec.get("schedule")
    if not schedule:
        errors.append(FieldError.required("spec.schedule"))
    elif "TZ" in schedule:
        detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        errors.append(FieldError.invalid("spec.schedule", schedule, detail))
    elif problem := schedule_error(schedule):
        errors.append(FieldError.invalid("spec.schedule", schedule, problem))
    zone = spec.get("timeZone")
    if zone is not None:
        errors += _validate_zone(zone)
    errors += check_not_negative("spec.startingDeadlineSeconds", spec.get("startingDeadlineSeconds"))
    policy = spec.get("concurrencyPolicy")
    errors += check_enum("spec.concurrencyPolicy", policy, ("Allow", "Forbid", "Replace"), required=True)
    template = spec.get("jobTemplate") or {}
    job = template.get("spec") or {}
    errors += validate_job_spec(job, "spec.jobTemplate.spec", selects=False)
    if (selector := job.get("selector")) is not None:
        detail = "`selector` will be auto-generated"
        errors.append(FieldError.invalid("spec.jobTemplate.spec.selector", selector, detail))
    if job.get("manualSelector"):
        errors.append(unsupported("spec.jobTemplate.spec.manualSelector", True, ("nil", "false")))
    for field in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        errors += check_not_negative(f"spec.{field}", spec.get(field))
    return errors


def validate_cron_job_update(new: Obj, old: Obj) -> list[FieldError]:
    """The spec's own rules; names of old objects are not judged again."""
    return _validate_cron_spec(new.get("spec") or {})


def _validate_zone(zone: str) -> list[FieldError]:
    path = "spec.timeZone"
    if not zone:
        return [FieldError.invalid(path, zone, "timeZone must be nil or non-empty string")]
    if zone.lower() == "local":
        return [
            FieldError.invalid(
                path, zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
            )
        ]
    return [] if _is_zone(zone) else [FieldError.invalid(path, zone, f"unknown time zone {zone}")]


@keep_short(256)
def _is_zone(zone: str) -> bool:
    import zoneinfo  # reads the system's database; only cron jobs with a zone need it

    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
