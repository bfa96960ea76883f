"""Rules of list and watch options: what may be combined, continue tokens, resource versions.

Pure; texts are upstream's. Called by `ResourceStore` before it reads anything.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, NamedTuple

import msgspec

from apiserver.registry.context import ListOptions, WatchOptions
from machinery.errors import BadRequest, Expired, StatusError
from machinery.field_errors import FieldError, invalid
from machinery.golang import json_error

TOKEN_VERSION = "meta.k8s.io/v1"
MATCHES = ("", "Exact", "NotOlderThan")
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
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            if problem := json_error(raw):
                raise ValueError(problem)
            token = msgspec.json.decode(raw)
            version, revision, start = token["v"], token["rv"], token["start"]
        except (binascii.Error, ValueError, KeyError, TypeError, msgspec.DecodeError) as error:
            raise BadRequest(f"invalid continue token: continue key is not valid: {error}") from error
        if version != TOKEN_VERSION or not isinstance(revision, int) or not isinstance(start, str):
            raise BadRequest(
                f'invalid continue token: continue key is not valid: server does not recognize "{version}"'
            )
        if not revision:
            raise BadRequest(
                "invalid continue token: continue key is not valid: incorrect encoded start resourceVersion"
            )
        if start.startswith("/") or "/../" in start:
            raise BadRequest(f"invalid continue token: continue key is not valid: {start}")
        return cls(revision, start)


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
    if options.send_initial_events is not None:
        raise _invalid_options(FieldError.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    if match:
        path = "resourceVersionMatch"
        if not version:
            text = "resourceVersionMatch is forbidden unless resourceVersion is provided"
            raise _invalid_options(FieldError.forbidden(path, text))
        if options.continue_:
            text = "resourceVersionMatch is forbidden when continue is provided"
            raise _invalid_options(FieldError.forbidden(path, text))
        if match not in MATCHES:
            shown = msgspec.json.encode(match).decode()
            text = f'Unsupported value: {shown}: supported values: "Exact", "NotOlderThan", ""'
            raise _invalid_options(FieldError(path, "FieldValueNotSupported", text))
        if match == "Exact" and version == "0":
            text = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
            raise _invalid_options(FieldError.forbidden(path, text))
    if options.continue_ and version not in ("", "0"):
        raise BadRequest("specifying resource version is not allowed when using continue")
    try:
        return parse_revision(version)
    except ValueError as error:
        text = f'resourceVersion: Invalid value: "{version}": {error}'
        raise BadRequest(f"invalid resource version: {text}") from error


def check_watch(options: WatchOptions) -> int:
    """The revision after which a watch starts. Raises StatusError."""
    match = options.resource_version_match
    if options.send_initial_events is not None and match != "NotOlderThan":
        text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        raise _invalid_options(FieldError.forbidden("resourceVersionMatch", text))
    if match and options.send_initial_events is None:
        text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        raise _invalid_options(FieldError.forbidden("resourceVersionMatch", text))
    try:
        return parse_revision(options.resource_version)
    except ValueError as error:
        # A known oddity of upstream: this one is a 500 without a reason.
        text = f'resourceVersion: Invalid value: "{options.resource_version}": {error}'
        raise StatusError(text, code=500, reason="") from error
