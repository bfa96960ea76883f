"""Volumes of pods: names, exactly one source, and the sources that are made of other things of the API.

Called by the pod spec validation. Sources that look at nothing but themselves are in `volume_sources`.
"""

from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.field_refs import VOLUME_FIELDS, validate_field_ref, validate_resource_field
from apiserver.registry.validation.fields import check_enum, check_label_selector, invalid_each
from apiserver.registry.validation.metadata import validate_annotations, validate_labels
from apiserver.registry.validation.signers import validate_signer_name
from apiserver.registry.validation.volume_sources import (
    POD,
    check_key_path,
    check_local_path,
    check_mode,
    iscsi,
)
from machinery.field_errors import FieldError

Obj = dict[str, Any]
_DUPLICATE_PATHS = "conflicting duplicate paths"
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")


def validate_volumes(volumes: list[Obj], path: str, pod: str = "") -> tuple[dict[str, Obj], list[FieldError]]:
    """The volumes without findings by name, and the findings. `pod` is the name of a real pod (not of a template)."""
    by_name: dict[str, Obj] = {}
    errors: list[FieldError] = []
    made = {f"{pod}-{volume.get('name') or ''}" for volume in volumes if pod and "ephemeral" in volume}
    for index, volume in enumerate(volumes):
        at = f"{path}[{index}]"
        found = validate_source(volume, at, pod)
        name = volume.get("name") or ""
        if not name:
            found.append(FieldError.required(f"{at}.name"))
        else:
            found += invalid_each(f"{at}.name", name, names.dns_label(name))
        if name in by_name:
            found.append(FieldError.duplicate(f"{at}.name", name))
        errors += found
        if not found:
            by_name[name] = volume
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim in made:
            detail = "must not reference a PVC that gets created for an ephemeral volume"
            errors.append(FieldError.invalid(f"{at}.persistentVolumeClaim.claimName", claim, detail))
    return by_name, errors


def validate_source(volume: Obj, path: str, pod: str = "") -> list[FieldError]:
    """Exactly one source, and that one complete."""
    given = [kind for kind in volume if kind in POD]
    if not given:
        return [FieldError.required(path, "must specify a volume type")]
    if len(given) > 1:
        given = [kind for kind in POD if kind in volume]
    first, *others = given
    source, at, check = volume[first], f"{path}.{first}", POD[first]
    errors: list[FieldError] = []
    if check is not None:
        errors = check(source, at)
    elif first == "iscsi":
        errors = iscsi(source, at, volume=volume.get("name") or "")
    elif first == "downwardAPI":
        errors = check_mode(f"{at}.defaultMode", source.get("defaultMode"))
        for item in source.get("items") or ():  # upstream names no index here
            errors += _downward_file(item, at)
    elif first == "projected":
        errors = check_mode(f"{at}.defaultMode", source.get("defaultMode")) + _projections(source, at)
    elif first == "ephemeral":
        errors = _ephemeral(source, volume.get("name") or "", pod, path)
    elif first == "image":
        if pod and not source.get("reference"):
            errors = [FieldError.required(f"{at}.reference")]
        errors += check_enum(f"{at}.pullPolicy", source.get("pullPolicy"), _PULL_POLICIES, required=True)
    for kind in others:
        shown = "downwarAPI" if kind == "downwardAPI" else "cephFS" if kind == "cephfs" else kind  # upstream's slips
        errors.append(FieldError.forbidden(f"{path}.{shown}", "may not specify more than 1 volume type"))
    return errors


def _downward_file(item: Obj, path: str) -> list[FieldError]:
    where = item.get("path") or ""
    errors = [] if where else [FieldError.required(f"{path}.path")]
    errors += check_local_path(f"{path}.path", where)
    field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
    if field is not None:
        errors += validate_field_ref(field, f"{path}.fieldRef", VOLUME_FIELDS)
        if resource is not None:
            detail = "fieldRef and resourceFieldRef can not be specified simultaneously"
            errors.append(FieldError.invalid(path, "resource", detail))
    elif resource is not None:
        errors += validate_resource_field(resource, f"{path}.resourceFieldRef", in_volume=True)
    else:
        errors.append(FieldError.required(path, "one of fieldRef and resourceFieldRef is required"))
    return errors + check_mode(f"{path}.mode", item.get("mode"))


def _projections(source: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()

    def take(where: str, shown: str) -> None:
        if where in seen:
            errors.append(FieldError.invalid(path, shown, _DUPLICATE_PATHS))
        seen.add(where)

    for index, part in enumerate(source.get("sources") or ()):
        at, count = f"{path}.sources[{index}]", 0
        for kind in ("secret", "configMap"):
            if (given := part.get(kind)) is None:
                continue
            count += 1
            name = given.get("name") or ""
            if not name:
                errors.append(FieldError.required(f"{at}.{kind}.name"))
            for position, item in enumerate(given.get("items") or ()):
                errors += check_key_path(item, f"{at}.{kind}.items[{position}]")
                if where := item.get("path"):
                    take(where, name)
        if (given := part.get("downwardAPI")) is not None:
            count += 1
            for item in given.get("items") or ():
                errors += _downward_file(item, f"{at}.downwardAPI")
                if where := item.get("path"):
                    take(where, where)
        if (given := part.get("serviceAccountToken")) is not None:
            count += 1
            errors += _token(given, f"{at}.serviceAccountToken", path)
        if (given := part.get("clusterTrustBundle")) is not None:
            count += 1
            errors += _trust_bundle(given, f"{at}.clusterTrustBundle")
            take(given.get("path") or "", given.get("path") or "")
        if count > 1:
            errors.append(FieldError.forbidden(at, "may not specify more than 1 volume type per source"))
    return errors


def _token(source: Obj, path: str, volume: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seconds, at = source.get("expirationSeconds", 3600), f"{path}.expirationSeconds"
    if seconds < 600:
        errors.append(FieldError.invalid(at, seconds, "may not specify a duration less than 10 minutes"))
    if seconds > 1 << 32:
        errors.append(FieldError.invalid(at, seconds, "may not specify a duration larger than 2^32 seconds"))
    where = source.get("path")
    # Upstream names the volume here, not its source.
    return errors + (check_local_path(f"{volume}.path", where) if where else [FieldError.required(f"{volume}.path")])


def _trust_bundle(source: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    name, signer, selector = source.get("name"), source.get("signerName"), source.get("labelSelector")
    where = source.get("path") or ""
    if name is not None and signer is not None:
        shown = {
            "Name": name,
            "SignerName": signer,
            "LabelSelector": selector,
            "Optional": source.get("optional"),
            "Path": where,
        }
        errors.append(FieldError.invalid(path, shown, "only one of name and signerName may be used"))
    elif name is not None:
        if not name:
            errors.append(FieldError.required(f"{path}.name", "must be a valid object name"))
        texts = [f"not a valid clustertrustbundlename: {text}" for text in _bundle_name(name)]
        errors += invalid_each(f"{path}.name", name, texts)
        if selector is not None:
            detail = "labelSelector must be unset if name is specified"
            errors.append(FieldError.invalid(f"{path}.labelSelector", selector, detail))
    elif signer is not None:
        if not signer:
            errors.append(FieldError.required(f"{path}.signerName", "must be a valid signer name"))
        errors += validate_signer_name(signer, f"{path}.signerName")
        errors += check_label_selector(f"{path}.labelSelector", selector)
    else:
        errors.append(FieldError.required(path, "either name or signerName must be specified"))
    if not where:
        errors.append(FieldError.required(f"{path}.path"))
    return errors + check_local_path(f"{path}.path", where)


def _bundle_name(name: str) -> list[str]:
    """Signers' bundles carry the signer's name, slashes as colons, before the last colon."""
    return names.dns_subdomain(name.rpartition(":")[2])


def _ephemeral(source: Obj, volume: str, pod: str, path: str) -> list[FieldError]:
    # Imported here: claims embed nothing of pods, but share the volume rules' neighbourhood.
    from apiserver.registry.validation.storage import validate_claim_spec

    template, at = source.get("volumeClaimTemplate"), f"{path}.ephemeral.volumeClaimTemplate"
    if template is None:
        errors = [FieldError.required(at)]
    else:
        meta = template.get("metadata") or {}
        errors = validate_annotations(meta.get("annotations"), f"{at}.metadata.annotations")
        errors += validate_labels(meta.get("labels"), f"{at}.metadata.labels")
        errors += [
            FieldError.forbidden(f"{at}.metadata.{'uID' if field == 'uid' else field}", "cannot be set")
            for field in _METADATA
            if meta.get(field) not in (None, "", 0, [], {})
        ]
        errors += validate_claim_spec(template.get("spec") or {}, f"{at}.spec")
    if pod and volume:
        claim = f"{pod}-{volume}"
        texts = [f'PVC name "{claim}": {text}' for text in names.dns_subdomain(claim)]
        errors += invalid_each(f"{path}.name", volume, texts)
    return errors


_METADATA = (
    "name", "generateName", "namespace", "selfLink", "uid", "resourceVersion", "generation", "creationTimestamp",
    "deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences", "finalizers", "managedFields",
)  # fmt: skip
