"""Names and lists in resource.k8s.io: devices, drivers, pools, attributes; lists without doubles and of bounded size.

Owns upstream's texts and limits for them. Pure. Called by the rules of claims, classes and slices.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Final, TypeVar

from apiserver.registry.validation import names
from apiserver.registry.validation.fields import invalid_each
from machinery.field_errors import FieldError

T = TypeVar("T")

DRIVER_LENGTH, POOL_LENGTH, IDENTIFIER_LENGTH = 63, 253, 32
_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
_IDENTIFIER_ERROR: Final = (
    "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters "
    f"or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '{_IDENTIFIER}')"
)
_UID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def check_slice(
    items: Iterable[T] | None, limit: int, check: Callable[[T, str], list[FieldError]], path: str
) -> list[FieldError]:
    """Every item, unless there are too many (a limit below 0: any number)."""
    found = list(items or ())
    if 0 <= limit < len(found):
        return [FieldError.too_many(path, len(found), limit)]
    return [error for index, item in enumerate(found) for error in check(item, f"{path}[{index}]")]


def check_set(
    items: Iterable[T] | None,
    limit: int,
    check: Callable[[T, str], list[FieldError]],
    key: Callable[[T], Hashable],
    path: str,
) -> list[FieldError]:
    """The same of items that differ by a key."""
    found = list(items or ())
    errors = check_slice(found, limit, check, path)
    if 0 <= limit < len(found):
        return errors
    seen: set[Hashable] = set()
    for index, item in enumerate(found):
        if (own := key(item)) in seen:
            errors.append(FieldError.duplicate(f"{path}[{index}]", own))
        seen.add(own)
    return errors


def named(item: Mapping[str, Any]) -> Hashable:
    return str(item.get("name") or "")


def itself(item: str) -> Hashable:
    return item


def check_driver(name: str, path: str) -> list[FieldError]:
    """A driver's name, by the rules for those of CSI."""
    if not name:
        return [FieldError.required(path)]
    errors = [FieldError.too_long(path, DRIVER_LENGTH)] if len(name) > DRIVER_LENGTH else []
    return errors + invalid_each(path, name, names.dns_subdomain(name.lower()))


def check_pool(name: str, path: str) -> list[FieldError]:
    if not name:
        return [FieldError.required(path)]
    errors = [FieldError.too_long(path, POOL_LENGTH)] if len(name) > POOL_LENGTH else []
    for part in name.split("/"):
        errors += invalid_each(path, part, names.dns_subdomain(part))
    return errors


def check_label(name: str, path: str) -> list[FieldError]:
    """Names of devices, requests and counters."""
    return invalid_each(path, name, names.dns_label(name))


def check_identifier(name: str, path: str) -> list[FieldError]:
    errors = [FieldError.too_long(path, IDENTIFIER_LENGTH)] if len(name) > IDENTIFIER_LENGTH else []
    return errors + ([] if re.fullmatch(_IDENTIFIER, name) else [FieldError.invalid(path, name, _IDENTIFIER_ERROR)])


def check_attribute_name(name: str, path: str) -> list[FieldError]:
    """`name` or `domain/name`."""
    parts = name.split("/")
    if len(parts) == 1:
        return check_identifier(name, path)
    if len(parts) > 2:
        return []  # upstream accepts these as they are
    domain, identifier = parts
    errors = check_driver(domain, path) if domain else [FieldError.invalid(path, "", "the domain must not be empty")]
    if not identifier:
        return [*errors, FieldError.invalid(path, "", "the name must not be empty")]
    return errors + check_identifier(identifier, path)


def check_qualified(name: str, path: str) -> list[FieldError]:
    """`domain/name`."""
    errors = check_attribute_name(name, path)
    if "/" not in name:
        detail = "a fully qualified name must be a domain and a name separated by a slash"
        errors.append(FieldError.invalid(path, name, detail))
    return errors


def check_uid(uid: str, path: str) -> list[FieldError]:
    if _UID.fullmatch(uid):
        return []
    if _UID.fullmatch(uid.lower()):
        detail = (
            "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase "
            "hexadecimal characters"
        )
        return [FieldError.invalid(path, uid, detail)]
    why = "invalid UUID format" if len(uid) == 36 else f"invalid UUID length: {len(uid)}"
    return [FieldError.invalid(path, uid, f"error validating uid: {why}")]
