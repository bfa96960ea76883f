"""ConversionReview: a definition's webhook translates objects between versions.

Owns what is said to the webhook, what its answer must be like (only labels and annotations of metadata may differ), and
upstream's words for what goes wrong. All objects of one question travel together. Called by `crd.webhook_store`; the
call itself is `admission.webhooks.call`'s.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from apiserver.registry.validation.metadata import validate_annotations, validate_labels
from machinery.errors import StatusError

Obj = dict[str, Any]

GROUP = "apiextensions.k8s.io"
SPOKEN = ("v1", "v1beta1")
TIMEOUT = 30.0
"""Real seconds, as upstream gives every conversion."""


class BadConversion(Exception):
    """The webhook's answer is none; the text goes behind the name of what was to be converted."""


class Caller(Protocol):
    """Posts a document to a webhook."""

    async def post(self, client: Mapping[str, Any], body: bytes, seconds: float) -> bytes:
        """The answer's body. Raises CallError."""


def review_version(accepted: Sequence[str]) -> str:
    """The first version of ConversionReview that both sides speak. Raises BadConversion."""
    for version in accepted:
        if version in SPOKEN:
            return version
    raise BadConversion("no supported conversion review versions")


def review_of(objects: Sequence[Obj], desired: str, version: str, uid: str) -> Obj:
    """The ConversionReview to send."""
    return {
        "kind": "ConversionReview",
        "apiVersion": f"{GROUP}/{version}",
        "request": {"uid": uid, "desiredAPIVersion": desired, "objects": list(objects)},
    }


def converted_of(raw: bytes, version: str, uid: str) -> list[Any]:
    """The objects of an answer. Raises BadConversion."""
    try:
        answer = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadConversion(f" failed: could not decode the response: {error}") from error
    if not isinstance(answer, dict):
        raise BadConversion(" failed: the response is no object")
    strict = version == "v1"
    told = (str(answer.get("apiVersion") or ""), str(answer.get("kind") or ""))
    if strict and told != (f"{GROUP}/v1", "ConversionReview"):
        wanted, got = f"{GROUP}/v1, Kind=ConversionReview", f"{told[0]}, Kind={told[1]}"
        raise BadConversion(f" failed: expected webhook response of {wanted}, got {got}")
    response = answer.get("response")
    if not isinstance(response, dict):
        raise BadConversion(" failed: no response provided")
    if strict and response.get("uid") != uid:
        raise BadConversion(f' failed: expected response.uid="{uid}", got "{response.get("uid") or ""}"')
    result = response.get("result")
    result = result if isinstance(result, dict) else {}
    if result.get("status") != "Success":
        plain = f"response.result.status was '{result.get('status') or ''}', not 'Success'"
        raise BadConversion(f" failed: {result.get('message') or plain}")
    objects = response.get("convertedObjects") or []
    if not isinstance(objects, list):
        raise BadConversion(" failed: convertedObjects is no list")
    return objects


def checked(original: Obj, converted: Any, desired: str, index: int, *, several: bool) -> Obj:
    """A converted object with the metadata that it may not change put back. Raises BadConversion."""
    what = f" returned invalid converted object at index {index}" if several else " returned invalid object"
    at = what if several else f"{what} at index 0"
    if not isinstance(converted, dict):
        raise BadConversion(f"{at}: it is no object")
    got = str(converted.get("apiVersion") or "")
    if got != desired:
        raise BadConversion(f"{at}: invalid groupVersion (expected {desired}, received {got})")
    kind, got_kind = original.get("kind"), converted.get("kind")
    if kind != got_kind:
        raise BadConversion(f"{at}: invalid kind (expected {kind}, received {got_kind or ''})")
    meta = converted.get("metadata")
    told = meta if isinstance(meta, dict) else {}
    for field, text in (("name", "name"), ("namespace", "namespace"), ("uid", "UID")):
        before, after = original["metadata"].get(field) or "", told.get(field) or ""
        if before != after:
            raise BadConversion(f"{what}: must have the same {text}: {before} != {after}")
    where = f" returned invalid metadata in object at index {index}" if several else " returned invalid metadata"
    if "metadata" not in converted:
        raise BadConversion(f"{where}: missing metadata in converted object")
    if not isinstance(meta, dict):
        raise BadConversion(f"{where}: invalid metadata in converted object")
    return {**converted, "metadata": _restored(original["metadata"], meta, where)}


def _restored(original: Obj, told: Obj, where: str) -> Obj:
    restored = copy.deepcopy(original)
    for field, validate in (("labels", validate_labels), ("annotations", validate_annotations)):
        given = told.get(field)
        if given is None:
            restored.pop(field, None)
            continue
        if not isinstance(given, dict):
            raise BadConversion(f"{where}: invalid metadata.{field} in converted object")
        for key, value in given.items():
            if not isinstance(value, str):
                raise BadConversion(f"{where}: metadata.{field}[{key}] must be a string in converted object")
        if given != (original.get(field) or {}) and (findings := validate(given, f"metadata.{field}")):
            raise BadConversion(f"{where}: {', '.join(str(finding) for finding in findings)}")
        restored[field] = given
    return restored


class WebhookConverter:
    """The conversion of one definition. `spec` is its `spec.conversion.webhook`."""

    def __init__(self, spec: Mapping[str, Any], caller: Caller) -> None:
        self._client: Mapping[str, Any] = spec.get("clientConfig") or {}
        self._accepted: tuple[str, ...] = tuple(spec.get("conversionReviewVersions") or ())
        self._caller = caller

    async def convert(self, objects: Sequence[Obj], desired: str) -> list[Obj]:
        """The objects in version `desired`, none of which is in it yet. Raises StatusError."""
        from apiserver.admission.webhooks.call import CallError

        if not objects:
            return []
        first, several = objects[0], len(objects) > 1
        shown = f"{first['apiVersion']}, Kind={first['kind']}{'List' if several else ''}"
        uid = str(uuid.uuid4())
        try:
            version = review_version(self._accepted)
        except BadConversion as error:
            raise StatusError(str(error), code=500, reason="") from error
        body = msgspec.json.encode(review_of(objects, desired, version, uid))
        try:
            found = converted_of(await self._caller.post(self._client, body, TIMEOUT), version, uid)
            if len(found) != len(objects):
                raise BadConversion(f" returned {len(found)} objects, expected {len(objects)}")
            pairs = enumerate(zip(objects, found, strict=True))
            return [checked(old, new, desired, index, several=several) for index, (old, new) in pairs]
        except (BadConversion, CallError) as error:
            why = str(error) if isinstance(error, BadConversion) else f" failed: {error}"
            raise StatusError(f"conversion webhook for {shown}{why}", code=500, reason="") from error
