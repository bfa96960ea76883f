"""Rules of list and watch options: what may be combined, continue tokens, resource versions.

Pure; texts are upstream's. Called by `ResourceStore` before it reads anything.
"""

from __future__ import annotations

import base64
import re
from posixpath import normpath
from typing import Any, NamedTuple

import msgspec

from apiserver.registry.context import ListOptions, WatchOptions
from machinery.errors import BadRequest, Expired, StatusError
from machinery.field_errors import FieldError, invalid
from machinery.golang import json_error, json_kind

TOKEN_VERSION = "meta.k8s.io/v1"
MATCHES = ("Exact", "NotOlderThan", "")
_WITH_CONTINUE = "resourceVersionMatch is forbidden when continue is provided"
_TOKEN_FIELDS: dict[str, tuple[type, str]] = {"v": (str, "string"), "rv": (int, "int64"), "start": (str, "string")}
_NO_BASE64 = re.compile(r"[^A-Za-z0-9_\r\n-]")
INCONSISTENT = -1
"""Revision in a token that says: go on from here in whatever state things are now."""

_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


class Token(NamedTuple):
    """Where a paged list goes on: at key suffix `start`, as of `revision`."""

    revision: int
    start: str

    def encode(self) -> str:
        raw = msgspec.json.encode({"v": TOKEN_VERSION, "rv": self.revision, "start": self.start})
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> Token:
        """Raises BadRequest."""
        try:
            return cls._read(text)
        except ValueError as error:
            raise BadRequest(f"invalid continue token: continue key is not valid: {error}") from error

    @classmethod
    def _read(cls, text: str) -> Token:
        raw = _unarmoured(text)
        if problem := json_error(raw):
            raise ValueError(problem)
        try:
            token = msgspec.json.decode(raw)
        except msgspec.DecodeError as error:
            raise ValueError(str(error)) from error
        if token is None:
            token = {}
        if not isinstance(token, dict):
            raise ValueError(f"json: cannot unmarshal {json_kind(token)} into Go value of type storage.continueToken")
        for field, value in token.items():
            known = _TOKEN_FIELDS.get(field)
            if known is not None and value is not None and type(value) is not known[0]:
                told = f"number {value}" if isinstance(value, float) else json_kind(value)
                raise ValueError(
                    f"json: cannot unmarshal {told} into Go struct field continueToken.{field} of type {known[1]}"
                )
        version, revision, start = token.get("v") or "", token.get("rv") or 0, token.get("start") or ""
        if version != TOKEN_VERSION:
            raise ValueError(f"server does not recognize this encoded version {version}")
        if not revision:
            raise ValueError(f"incorrect encoded start resourceVersion (version {TOKEN_VERSION})")
        if not start:
            raise ValueError(f"encoded start key empty (version {TOKEN_VERSION})")
        path = start if start.startswith("/") else f"/{start}"
        if normpath(path) != path or path.startswith("//"):  # nobody climbs out of the resource that is listed
            raise ValueError(start)
        return cls(revision, path[1:])


def _unarmoured(text: str) -> bytes:
    """Unpadded URL-safe base64. Raises ValueError in Go's words, with the place of the first wrong character."""
    plain = text.replace("\r", "").replace("\n", "")
    wrong = _NO_BASE64.search(text)
    if wrong is not None or len(plain) % 4 == 1:
        raise ValueError(f"illegal base64 data at input byte {wrong.start() if wrong else len(text) - 1}")
    return base64.urlsafe_b64decode(plain + "=" * (-len(plain) % 4))


class ExpiredToken(Expired):
    """The token's revision was compacted; `metadata.continue` offers to go on inconsistently."""

    def __init__(self, start: str) -> None:
        super().__init__(_EXPIRED)
        self.continue_ = Token(INCONSISTENT, start).encode()

    def to_status(self) -> dict[str, Any]:
        return {**super().to_status(), "metadata": {"continue": self.continue_}}


def parse_revision(text: str) -> int:
    """A resourceVersion as a number ("" is 0). Raises ValueError with Go's text."""
    if not text:
        return 0
    if not text.isascii() or not text.isdigit():
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    value = int(text)
    if value >= 1 << 64:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return value


def _invalid_options(*errors: FieldError) -> StatusError:
    return invalid("ListOptions", "", "meta.k8s.io", errors)


def check_list(options: ListOptions) -> int:
    """The revision a list asks for. Raises StatusError for combinations that make no sense."""
    match, version = options.resource_version_match, options.resource_version
    path, errors = "resourceVersionMatch", list[FieldError]()
    if match:
        if not version:
            text = "resourceVersionMatch is forbidden unless resourceVersion is provided"
            errors.append(FieldError.forbidden(path, text))
        if options.continue_:
            errors.append(FieldError.forbidden(path, _WITH_CONTINUE))
        if match not in MATCHES:
            errors.append(FieldError.not_supported(path, match, MATCHES, sort=False))
        if match == "Exact" and version == "0":
            text = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
            errors.append(FieldError.forbidden(path, text))
    if options.send_initial_events is not None:
        errors.append(FieldError.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    if errors:
        raise _invalid_options(*errors)
    if options.continue_ and version not in ("", "0"):
        raise BadRequest("specifying resource version is not allowed when using continue")
    try:
        return parse_revision(version)
    except ValueError as error:
        text = f'resourceVersion: Invalid value: "{version}": {error}'
        raise BadRequest(f"invalid resource version: {text}") from error


def check_watch(options: WatchOptions) -> int:
    """The revision after which a watch starts. Raises StatusError."""
    match, initial = options.resource_version_match, options.send_initial_events
    path, errors = "resourceVersionMatch", list[FieldError]()
    if initial is not None and match != "NotOlderThan":
        text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        errors.append(FieldError.forbidden(path, text))
    if match:
        if initial is None:
            text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            errors.append(FieldError.forbidden(path, text))
        if match != "NotOlderThan":
            errors.append(FieldError.not_supported(path, match, ("NotOlderThan",)))
        if options.continue_:
            errors.append(FieldError.forbidden(path, _WITH_CONTINUE))
    if errors:
        raise _invalid_options(*errors)
    try:
        return parse_revision(options.resource_version)
    except ValueError as error:
        # A known oddity of upstream: this one is a 500 without a reason.
        text = f'resourceVersion: Invalid value: "{options.resource_version}": {error}'
        raise StatusError(text, code=500, reason="") from error
