"""Request bodies: reading them within a limit and decoding JSON, YAML and protobuf into plain dicts.

Owns: size and depth limits, media types of bodies, messages of malformed bodies. Never validates fields. Called by
the REST door's write handlers.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from apiserver.rest.negotiation import JSON, PROTOBUF, YAML, media_type_of
from apiserver.rest.responses import Receive
from machinery.errors import BadRequest, StatusError, TooLarge, UnsupportedMediaType
from machinery.golang import json_error, json_kind
from machinery.nesting import too_deep

LIMIT = 3 * 1024 * 1024
# Shared YAML anchors may stand for far more nodes than their text has characters.
YAML_NODE_LIMIT = 500_000

OFF_LOOP = 64 * 1024
"""Text of YAML beyond this is read by a thread: a second per megabyte is more than other requests should wait."""
_ESCAPES = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""A surrogate pair, a half of one, or any other escape."""

_decode_json = msgspec.json.Decoder().decode


class ClientGone(Exception):
    """The client went away before its request was complete; nobody is there to be answered."""


async def read(receive: Receive) -> bytes:
    """The whole body. Raises TooLarge past the limit."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        if len(body) > LIMIT:
            raise too_large()
        return body
    parts, size = [body], len(body)
    while message.get("more_body"):
        if size > LIMIT:
            raise too_large()
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body = message.get("body", b"")
        parts.append(body)
        size += len(body)
    if size > LIMIT:
        raise too_large()
    return b"".join(parts)


def clean(raw: bytes) -> bytes:
    """JSON text with what is no Unicode replaced, as Go's decoder reads it: all later readers see the same characters.

    That is bytes that are no UTF-8, and escapes of one half of a surrogate pair.
    """
    if b"\\ud" in raw or b"\\uD" in raw:
        raw = _ESCAPES.sub(_whole, raw)
    if raw.isascii():
        return raw
    try:
        raw.decode()
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace").encode()
    return raw


def _whole(found: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if found[1] else found[0]


def too_large() -> TooLarge:
    return TooLarge(f"Request entity too large: limit is {LIMIT}")


def decode(raw: bytes, content_type: str, kind: str) -> dict[str, Any]:
    """A body as a dict; `kind` names the expected kind in messages."""
    media_type = media_type_of(content_type) if content_type else JSON
    if media_type == JSON:
        return decode_json(raw, kind)
    if media_type in (YAML, "application/x-yaml", "text/yaml"):
        return decode_yaml(raw, kind)
    if media_type == PROTOBUF:
        return decode_protobuf(raw, kind)
    raise UnsupportedMediaType(
        f"the body of the request was in an unknown format - accepted media types include: {JSON}, {YAML}, {PROTOBUF}"
    )


def is_slow(raw: bytes, content_type: str) -> bool:
    """Should a body be decoded by a thread?"""
    return len(raw) > OFF_LOOP and media_type_of(content_type) not in ("", JSON, PROTOBUF) and raw[:1] != b"{"


def decode_json(raw: bytes, kind: str) -> dict[str, Any]:
    """JSON text as a dict."""
    try:
        value = _decode_json(clean(raw))
    except msgspec.DecodeError as exc:
        raise unrecognized(
            kind, f"couldn't get version/kind; json parse error: {go_json_error(exc, raw)}", raw
        ) from exc
    except RecursionError as exc:
        raise too_deep() from exc
    return _typed(value, kind, raw)


def _typed(value: Any, kind: str, raw: bytes) -> dict[str, Any]:
    """Type and version are read first, before anything is known of the rest."""
    if value is None:
        return {}  # Go leaves every field as it was
    if not isinstance(value, dict):
        raise unrecognized(kind, _no_type_meta(value), raw)
    for field in ("apiVersion", "kind"):
        if not isinstance(given := value.get(field), str | None):
            why = f"json: cannot unmarshal {json_kind(given)} into Go struct field .{field} of type string"
            raise unrecognized(kind, f"couldn't get version/kind; json parse error: {why}", raw)
    return value


def _no_type_meta(value: Any) -> str:
    struct = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
    why = f"json: cannot unmarshal {json_kind(value)} into Go value of type {struct}"
    return f"couldn't get version/kind; json parse error: {why}"


def decode_yaml(raw: bytes, kind: str) -> dict[str, Any]:
    """YAML as a dict of what JSON can say."""
    try:
        value = load_yaml(raw)
    except ValueError as exc:
        raise unrecognized(kind, str(exc), raw) from exc
    return _typed(value, kind, raw)


def decode_apply(raw: bytes) -> dict[str, Any]:
    """The configuration of a server-side apply, YAML or JSON."""
    try:
        value = _decode_json(raw) if raw[:1] == b"{" else load_yaml(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            value = load_yaml(raw)
        except ValueError as exc:
            raise _no_configuration(str(exc)) from exc
    except ValueError as exc:
        raise _no_configuration(str(exc)) from exc
    if not isinstance(value, dict):
        kind = json_kind(value)
        why = f"json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
        raise BadRequest(f"error decoding YAML: error unmarshaling JSON: while decoding JSON: {why}")
    return value


def _no_configuration(why: str) -> BadRequest:
    return BadRequest(f"error decoding YAML: error converting YAML to JSON: {why}")


def load_yaml(raw: bytes) -> Any:
    """YAML 1.1 as JSON values: keys become strings, times stay text. Raises ValueError."""
    import yaml

    from apiserver.rest.yaml_values import check_expansion, first_document, to_json_values

    try:
        check_expansion(raw, YAML_NODE_LIMIT)
        value = first_document(raw)
    except yaml.MarkedYAMLError as exc:
        raise ValueError(f"yaml: {_yaml_line(exc)}{exc.problem}") from exc
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as exc:
        raise ValueError(f"yaml: {exc}") from exc
    return to_json_values(value, YAML_NODE_LIMIT)


def _yaml_line(error: Any) -> str:
    """Where the error is, as upstream's parser counts: from zero, but for its scanner; it tells no line 0."""
    from yaml.scanner import ScannerError

    marks = (error.context_mark, error.problem_mark)
    line = next((mark.line for mark in marks if mark is not None and mark.line), 0)
    return f"line {line + isinstance(error, ScannerError)}: " if line else ""


def decode_protobuf(raw: bytes, kind: str) -> dict[str, Any]:
    """A `k8s\\0` envelope as a dict."""
    if not raw:
        raise unrecognized(kind, "empty data", raw)
    from machinery import protobuf

    try:
        return protobuf.decode(raw, kind)
    except StatusError:
        raise
    except (ValueError, KeyError) as exc:
        raise unrecognized(kind, str(exc), raw) from exc


def unrecognized(kind: str, why: str, raw: bytes) -> BadRequest:
    """`kind` "": of a body that is no object, such as options, whose reader is not as talkative."""
    if not kind:
        return BadRequest(why)
    return BadRequest(f"the object provided is unrecognized (must be of type {kind}): {why} ({_excerpt(raw)})")


def go_json_error(exc: Exception, raw: bytes) -> str:
    """The JSON error in the words clients know."""
    return json_error(raw) or str(exc)


def _excerpt(raw: bytes) -> str:
    if not raw:
        return "<empty>"
    start = raw[:30]
    text = start.decode("utf-8", "replace") if raw[:1] == b"{" else start.hex()
    return text if len(raw) <= 30 else f"{text} ..."
