"""Webhook configurations, API services, flow control and device claims.

Called by the rules of those kinds in the strategy table.
"""

import base64
from typing import Any
from urllib.parse import urlsplit

from apiserver.registry.validation import names
from apiserver.registry.validation.fields import check_enum, check_label_selector, invalid_each, unsupported
from apiserver.registry.validation.policies import validate_admission_policy as validate_admission_policy
from apiserver.registry.validation.policies import validate_conditions, validate_rule
from apiserver.registry.validation.policies import validate_mutating_binding as validate_mutating_binding
from apiserver.registry.validation.policies import validate_mutating_policy as validate_mutating_policy
from apiserver.registry.validation.policies import validate_policy_binding as validate_policy_binding
from machinery.field_errors import FieldError

Obj = dict[str, Any]

_REVIEW_VERSIONS = ("v1", "v1beta1")
_QUIET = ("None", "NoneOnDryRun")
_EFFECTS = ("None", "NoneOnDryRun", "Some", "Unknown")


def validate_webhooks(obj: Obj) -> list[FieldError]:
    """Both webhook configurations, new ones."""
    return _validate_webhooks(obj.get("webhooks") or [], [])


def validate_webhooks_update(new: Obj, old: Obj) -> list[FieldError]:
    """What the old configuration got away with, the new one may do too."""
    return _validate_webhooks(new.get("webhooks") or [], old.get("webhooks") or [])


def _validate_webhooks(hooks: list[Obj], old: list[Obj]) -> list[FieldError]:
    named = [hook.get("name") or "" for hook in old]
    unique = len(set(named)) == len(named)
    quiet = all(hook.get("sideEffects") in _QUIET for hook in old)
    known = all(set(_REVIEW_VERSIONS) & set(hook.get("admissionReviewVersions") or _REVIEW_VERSIONS) for hook in old)
    kept = len(hooks) == len(old) and all(
        new.get("matchConditions") == was.get("matchConditions") for new, was in zip(hooks, old, strict=True)
    )
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, hook in enumerate(hooks):
        path, name = f"webhooks[{index}]", hook.get("name") or ""
        errors += _validate_hook(hook, path, _QUIET if quiet else _EFFECTS)
        if not kept:
            errors += validate_conditions(hook.get("matchConditions") or [], f"{path}.matchConditions")
        versions = hook.get("admissionReviewVersions") or []
        errors += _validate_versions(versions, f"{path}.admissionReviewVersions", known=known)
        if unique and name in seen:
            errors.append(FieldError.duplicate(f"{path}.name", name))
        if name:
            seen.add(name)
    return errors


def _qualified(path: str, name: str) -> list[FieldError]:
    if not name:
        return [FieldError.required(path)]
    if texts := names.dns_subdomain(name):
        return [FieldError.invalid(path, name, ",".join(texts))]
    if name.count(".") < 2:
        detail = "should be a domain with at least three segments separated by dots"
        return [FieldError.invalid(path, name, detail)]
    return []


def _validate_hook(hook: Obj, path: str, effects: tuple[str, ...]) -> list[FieldError]:
    errors = _qualified(f"{path}.name", hook.get("name") or "")
    for index, rule in enumerate(hook.get("rules") or ()):
        errors += validate_rule(rule, f"{path}.rules[{index}]")
    errors += check_enum(f"{path}.failurePolicy", hook.get("failurePolicy"), ("Fail", "Ignore"))
    errors += check_enum(f"{path}.matchPolicy", hook.get("matchPolicy"), ("Equivalent", "Exact"))
    if hook.get("sideEffects") is None:
        errors.append(FieldError.required(f"{path}.sideEffects", f"must specify one of {', '.join(effects)}"))
    else:
        errors += check_enum(f"{path}.sideEffects", hook["sideEffects"], effects)
    timeout = hook.get("timeoutSeconds")
    if timeout is not None and not 1 <= timeout <= 30:
        detail = "the timeout value must be between 1 and 30 seconds"
        errors.append(FieldError.invalid(f"{path}.timeoutSeconds", timeout, detail))
    errors += check_label_selector(f"{path}.namespaceSelector", hook.get("namespaceSelector"))
    errors += check_label_selector(f"{path}.objectSelector", hook.get("objectSelector"))
    errors += check_enum(f"{path}.reinvocationPolicy", hook.get("reinvocationPolicy"), ("IfNeeded", "Never"))
    return errors + validate_client(hook.get("clientConfig") or {}, f"{path}.clientConfig")


def _validate_versions(versions: list[str], path: str, *, known: bool) -> list[FieldError]:
    """Labels, none twice; one that the server speaks, if it has to be `known`."""
    listed = ", ".join(_REVIEW_VERSIONS)
    if not versions:
        return [FieldError.required(path, f"must specify one of {listed}")]
    errors: list[FieldError] = []
    for index, version in enumerate(versions):
        if version in versions[:index]:
            errors.append(FieldError.invalid(f"{path}[{index}]", version, "duplicate version"))
        else:
            errors += invalid_each(f"{path}[{index}]", version, names.dns_1035_label(version))
    if known and not set(_REVIEW_VERSIONS) & set(versions):
        errors.append(FieldError.invalid(path, versions, f"must include at least one of {listed}"))
    return errors


def validate_client(client: Obj, path: str) -> list[FieldError]:
    """How to reach a webhook."""
    url, service = client.get("url"), client.get("service")
    if (url is None) == (service is None):
        return [FieldError.required(path, "exactly one of url or service is required")]
    errors: list[FieldError] = []
    if url is not None:
        wanted = "; desired format: https://host[/path]"
        parts = urlsplit(url)
        if parts.scheme != "https":
            detail = f"'https' is the only allowed URL scheme{wanted}"
            errors.append(FieldError.invalid(f"{path}.url", parts.scheme, detail))
        if not parts.netloc:
            errors.append(FieldError.invalid(f"{path}.url", "", f"host must be provided{wanted}"))
        if parts.username is not None:
            user = parts.netloc.rpartition("@")[0]
            errors.append(FieldError.invalid(f"{path}.url", user, "user information is not permitted in the URL"))
        if parts.fragment:
            errors.append(FieldError.invalid(f"{path}.url", parts.fragment, "fragments are not permitted in the URL"))
        if parts.query:
            detail = "query parameters are not permitted in the URL"
            errors.append(FieldError.invalid(f"{path}.url", parts.query, detail))
        return errors
    assert service is not None
    at = f"{path}.service"
    for field in ("name", "namespace"):
        if not service.get(field):
            errors.append(FieldError.required(f"{at}.{field}", f"service {field} is required"))
    port = service.get("port", 443)
    if texts := names.port_number(port):
        errors.append(FieldError.invalid(f"{at}.port", port, f"port is not valid: {', '.join(texts)}"))
    return errors + _validate_path(service.get("path") or "", f"{at}.path")


def _validate_path(path: str, at: str) -> list[FieldError]:
    """Segments of the path behind a service: names of subdomains."""
    if path in ("", "/"):
        return []
    if path == "//":
        return [FieldError.invalid(at, path, "segment[0] may not be empty")]
    errors = [] if path.startswith("/") else [FieldError.invalid(at, path, "must start with a '/'")]
    for index, step in enumerate(path[1:].removesuffix("/").split("/")):
        if not step:
            errors.append(FieldError.invalid(at, path, f"segment[{index}] may not be empty"))
        else:
            texts = names.dns_subdomain(step)
            errors += [FieldError.invalid(at, path, f"segment[{index}]: {text}") for text in texts]
    return errors


def validate_api_service(obj: Obj) -> list[FieldError]:
    """The name is version.group; priorities lie in their ranges."""
    spec = obj.get("spec") or {}
    group, version = spec.get("group") or "", spec.get("version") or ""
    name = obj["metadata"].get("name") or ""
    errors: list[FieldError] = []
    if name != f"{version}.{group}":
        detail = f'must be `spec.version+"."+spec.group`: "{version}.{group}"'
        errors.append(FieldError.invalid("metadata.name", name, detail))
    if not group and version != "v1":
        detail = "only v1 may have an empty group and it better be legacy kube"
        errors.append(FieldError.required("spec.group", detail))
    if group:
        errors += invalid_each("spec.group", group, names.dns_subdomain(group))
    errors += invalid_each("spec.version", version, names.dns_1035_label(version))
    low, high = spec.get("groupPriorityMinimum") or 0, spec.get("versionPriority") or 0
    if not 0 < low <= 20000:
        detail = "must be positive and less than 20000"
        errors.append(FieldError.invalid("spec.groupPriorityMinimum", low, detail))
    if not 0 < high <= 1000:
        detail = "must be positive and less than 1000"
        errors.append(FieldError.invalid("spec.versionPriority", high, detail))
    service = spec.get("service")
    if service is None:
        if spec.get("caBundle"):
            detail = "local APIServices may not have a caBundle"
            size = len(base64.b64decode(spec["caBundle"]))
            errors.append(FieldError.invalid("spec.caBundle", f"{size} bytes", detail))
        if spec.get("insecureSkipTLSVerify"):
            detail = "local APIServices may not have insecureSkipTLSVerify"
            errors.append(FieldError.invalid("spec.insecureSkipTLSVerify", True, detail))
        return errors
    for field in ("namespace", "name"):
        if not service.get(field):
            errors.append(FieldError.required(f"spec.service.{field}"))
    port = service.get("port", 443)
    if texts := names.port_number(port):
        errors.append(FieldError.invalid("spec.service.port", port, f"port is not valid: {', '.join(texts)}"))
    if spec.get("insecureSkipTLSVerify") and spec.get("caBundle"):
        detail = "may not be true if caBundle is present"
        errors.append(FieldError.invalid("spec.insecureSkipTLSVerify", True, detail))
    return errors


def validate_api_service_status(obj: Obj, old: Obj) -> list[FieldError]:
    """Conditions are True, False or Unknown."""
    return [
        unsupported(f"status.conditions[{index}].status", condition.get("status") or "", ("True", "False", "Unknown"))
        for index, condition in enumerate((obj.get("status") or {}).get("conditions") or ())
        if condition.get("status") not in ("True", "False", "Unknown")
    ]
