"""Persistent volumes, claims and the storage.k8s.io kinds."""

from typing import Any

from machinery.field_errors import FieldError

Obj = dict[str, Any]


def validate_claim_spec(spec: Obj, path: str) -> list[FieldError]:
    """PersistentVolumeClaimSpec."""
    return []
