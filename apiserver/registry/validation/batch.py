"""Jobs and cron jobs.

Called by their strategies.
"""

from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.fields import (
    check_enum,
    check_immutable,
    check_not_negative,
    invalid_each,
    unsupported,
)
from apiserver.registry.validation.metadata import IMMUTABLE
from apiserver.registry.validation.pod import validate_template
from apiserver.registry.validation.pod_dump import template_value
from apiserver.registry.validation.schedule import schedule_error
from apiserver.registry.validation.workloads import validate_template_labels
from machinery.caching import keep_short
from machinery.field_errors import FieldError

Obj = dict[str, Any]
CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
JOB_NAME = "batch.kubernetes.io/job-name"
_COUNTS = ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished")
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")


def validate_job(obj: Obj) -> list[FieldError]:
    """batch/v1 Job as created."""
    return _generated(obj) + validate_job_spec(obj.get("spec") or {}, "spec", selects=True)


def _generated(obj: Obj) -> list[FieldError]:
    """The selector is the server's unless the client asked to choose it."""
    spec = obj.get("spec") or {}
    if spec.get("manualSelector"):
        return []
    uid = obj["metadata"].get("uid")
    selector = spec.get("selector") or {}
    wanted = ({"matchLabels": {CONTROLLER_UID: uid}}, {"matchLabels": {"controller-uid": uid}})
    if {key: value for key, value in selector.items() if value} not in wanted:
        return [FieldError.invalid("spec.selector", selector, "`selector` not auto-generated")]
    return []


def validate_job_spec(spec: Obj, path: str, *, selects: bool) -> list[FieldError]:
    """A JobSpec; `selects`: it has a selector (the template of a CronJob has none)."""
    errors: list[FieldError] = []
    for field in _COUNTS:
        errors += check_not_negative(f"{path}.{field}", spec.get(field))
    mode = spec.get("completionMode")
    if mode is not None and mode not in ("NonIndexed", "Indexed"):
        errors.append(unsupported(f"{path}.completionMode", mode, ("NonIndexed", "Indexed")))
    if mode == "Indexed":
        errors += _validate_indexed(spec, path)
    for field in ("backoffLimitPerIndex", "maxFailedIndexes"):
        if (value := spec.get(field)) is not None:
            errors += check_not_negative(f"{path}.{field}", value)
            if mode != "Indexed":
                errors.append(FieldError.invalid(f"{path}.{field}", value, "requires indexed completion mode"))
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        errors.append(FieldError.required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    policy = spec.get("podFailurePolicy")
    if policy is not None:
        errors += _validate_failure_policy(spec, policy, f"{path}.podFailurePolicy")
    errors += _validate_replacement(spec, path)
    template = spec.get("template") or {}
    at = f"{path}.template"
    if selects and spec.get("selector"):
        errors += validate_template_labels(spec["selector"], template, at)
    errors += [error for error in validate_template(template, at) if error.field != f"{at}.spec.restartPolicy"]
    return errors + _validate_restart_policy(template.get("spec") or {}, f"{at}.spec", policy is not None)


def _validate_indexed(spec: Obj, path: str) -> list[FieldError]:
    if spec.get("completions") is None:
        detail = "when completion mode is Indexed"
        return [FieldError.required(f"{path}.completions", detail)]
    parallelism = spec.get("parallelism") or 0
    if parallelism > 100_000:
        detail = "must be less than or equal to 100000 when completion mode is Indexed"
        return [FieldError.invalid(f"{path}.parallelism", parallelism, detail)]
    return []


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


def _validate_failure_policy(spec: Obj, policy: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    pods = (spec.get("template") or {}).get("spec") or {}
    containers = [*(pods.get("containers") or ()), *(pods.get("initContainers") or ())]
    known = {container.get("name") for container in containers}
    rules = policy.get("rules") or []
    if len(rules) > 20:
        errors.append(FieldError.too_many(f"{path}.rules", len(rules), 20))
    for index, rule in enumerate(rules):
        at = f"{path}.rules[{index}]"
        action = rule.get("action")
        if not action:
            errors.append(FieldError.required(f"{at}.action", f"valid values: {list(_ACTIONS)}"))
        elif action == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
            detail = "requires the backoffLimitPerIndex to be set"
            errors.append(FieldError.invalid(f"{at}.action", action, detail))
        elif action not in _ACTIONS:
            errors.append(unsupported(f"{at}.action", action, _ACTIONS))
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
        if codes is not None:
            errors += _validate_exit_codes(codes, f"{at}.onExitCodes", known)
        if conditions and codes is not None:
            detail = "specifying both OnExitCodes and OnPodConditions is not supported"
            errors.append(FieldError.invalid(at, rule, detail))
        elif not conditions and codes is None:
            detail = "specifying one of OnExitCodes and OnPodConditions is required"
            errors.append(FieldError.invalid(at, rule, detail))
        for position, pattern in enumerate(conditions or ()):
            kind = pattern.get("type") or ""
            where = f"{at}.onPodConditions[{position}]"
            errors += invalid_each(f"{where}.type", kind, names.qualified_name(kind))
            valid = ("False", "True", "Unknown")
            errors += check_enum(f"{where}.status", pattern.get("status"), valid, required=True)
    return errors


def _validate_exit_codes(codes: Obj, path: str, containers: set[Any]) -> list[FieldError]:
    errors: list[FieldError] = []
    operator, values = codes.get("operator"), codes.get("values") or []
    errors += check_enum(f"{path}.operator", operator, ("In", "NotIn"), required=True)
    name = codes.get("containerName")
    if name is not None and name not in containers:
        errors.append(
            FieldError.invalid(
                f"{path}.containerName", name, "must be one of the container or initContainer names in the pod template"
            )
        )
    if not values:
        errors.append(FieldError.invalid(f"{path}.values", values, "at least one value is required"))
    seen: set[int] = set()
    for index, value in enumerate(values):
        if operator == "In" and value == 0:
            errors.append(FieldError.invalid(f"{path}.values[{index}]", value, "must not be 0 for the In operator"))
        if value in seen:
            errors.append(FieldError.duplicate(f"{path}.values[{index}]", value))
        seen.add(value)
    if values != sorted(values):
        errors.append(FieldError.invalid(f"{path}.values", values, "must be ordered"))
    return errors


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
    errors = [*_generated(new), *validate_job_spec(new["spec"], "spec", selects=True)] if _stale(new, old) else []
    after, before = new["spec"], old["spec"]
    errors += _validate_completions(after, before)
    errors += check_immutable("spec.selector", after.get("selector"), before.get("selector"))
    loose = bool(before.get("suspend")) and not (old.get("status") or {}).get("startTime")
    if _comparable(after.get("template") or {}, loose) != _comparable(before.get("template") or {}, loose):
        errors.append(FieldError.invalid("spec.template", template_value(after.get("template") or {}), IMMUTABLE))
    for field in ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"):
        errors += check_immutable(f"spec.{field}", after.get(field), before.get(field))
    return errors


def _stale(new: Obj, old: Obj) -> bool:
    return bool(new["spec"] != old["spec"])


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
    errors += validate_job_spec(template.get("spec") or {}, "spec.jobTemplate.spec", selects=False)
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
