"""Kubernetes' Status errors as one family of exceptions.

A `StatusError` is what an API server answers and what a client raises: HTTP code, reason (one CamelCase word of
metav1.StatusReason), message and details. REST writes `to_status()` as the body; gRPC carries the same JSON in
trailing metadata; `StatusError.from_status` turns either back into the matching subclass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

CONFLICT_HINT = "the object has been modified; please apply your changes to the latest version and try again"


class Cause(NamedTuple):
    """metav1.StatusCause; empty parts are left out of the JSON."""

    reason: str
    message: str
    field: str = ""

    def as_dict(self) -> dict[str, str]:
        pairs = (("reason", self.reason), ("message", self.message), ("field", self.field))
        return {key: value for key, value in pairs if value}


def qualified(resource: str, group: str) -> str:
    """`deployments.apps`, or `pods` for the core group: how messages name a resource."""
    return f"{resource}.{group}" if group else resource


def _details(
    name: str = "",
    group: str = "",
    kind: str = "",
    *,
    uid: str = "",
    causes: Sequence[Cause] = (),
    retry_after_seconds: int = 0,
) -> dict[str, Any]:
    pairs: tuple[tuple[str, Any], ...] = (
        ("name", name),
        ("group", group),
        ("kind", kind),
        ("uid", uid),
        ("causes", [cause.as_dict() for cause in causes]),
        ("retryAfterSeconds", retry_after_seconds),
    )
    return {key: value for key, value in pairs if value}


class StatusError(Exception):
    """A failed request. Subclasses fix `code` and `reason`; an unknown pair stays a plain StatusError."""

    code: int = 500
    reason: str = "InternalError"
    _by_reason: ClassVar[dict[str, type[StatusError]]] = {}
    _by_code: ClassVar[dict[int, type[StatusError]]] = {}

    def __init__(
        self, message: str, *, details: dict[str, Any] | None = None, code: int | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        if code is not None:
            self.code = code
        if reason is not None:
            self.reason = reason

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        StatusError._by_reason.setdefault(cls.reason, cls)
        StatusError._by_code.setdefault(cls.code, cls)

    @property
    def causes(self) -> list[dict[str, str]]:
        """`details.causes`, or an empty list."""
        return list((self.details or {}).get("causes") or ())

    @property
    def retry_after_seconds(self) -> int:
        return int((self.details or {}).get("retryAfterSeconds") or 0)

    def to_status(self) -> dict[str, Any]:
        """The metav1.Status that tells this error."""
        status: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        status["message"] = self.message
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        status["code"] = self.code
        return status

    @classmethod
    def from_status(cls, status: Mapping[str, Any]) -> StatusError:
        """Inverse of `to_status`; picks the subclass by reason, else by code."""
        code, reason = int(status.get("code") or 500), str(status.get("reason") or "")
        kind = cls._by_reason.get(reason) or cls._by_code.get(code) or StatusError
        details = status.get("details")
        error = kind(str(status.get("message") or ""), details=dict(details) if details else None)
        error.code, error.reason = code, reason
        return error


class NotFound(StatusError):
    """404."""

    code, reason = 404, "NotFound"

    @classmethod
    def of(cls, resource: str, name: str, group: str = "") -> Self:
        """`pods "x" not found`."""
        return cls(f'{qualified(resource, group)} "{name}" not found', details=_details(name, group, resource))

    @classmethod
    def path(cls) -> Self:
        """No such resource type on this server."""
        return cls("the server could not find the requested resource", details={})


class AlreadyExists(StatusError):
    """409 at creation."""

    code, reason = 409, "AlreadyExists"

    @classmethod
    def of(cls, resource: str, name: str, group: str = "") -> Self:
        message = f'{qualified(resource, group)} "{name}" already exists'
        return cls(message, details=_details(name, group, resource))


class Conflict(StatusError):
    """409 on a stale resourceVersion, a failed precondition or a conflicting state."""

    code, reason = 409, "Conflict"

    @classmethod
    def of(cls, resource: str, name: str, group: str = "", why: str = CONFLICT_HINT) -> Self:
        message = f'Operation cannot be fulfilled on {qualified(resource, group)} "{name}": {why}'
        return cls(message, details=_details(name, group, resource))


class Invalid(StatusError):
    """422 with one cause per field."""

    code, reason = 422, "Invalid"

    @classmethod
    def of(cls, kind: str, name: str, group: str = "", causes: Iterable[Cause] = ()) -> Self:
        """`causes` carry upstream's per-field texts without the path; the message joins path and text, each once."""
        found = tuple(causes)
        told = (f"{cause.field}: {cause.message}" if cause.field else cause.message for cause in found)
        texts = list(dict.fromkeys(told))
        joined = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
        message = f'{qualified(kind, group)} "{name}" is invalid'
        if texts:
            message += f": {joined}"
        return cls(message, details=_details(name, group, kind, causes=found))


class BadRequest(StatusError):
    """400."""

    code, reason = 400, "BadRequest"


class Unauthorized(StatusError):
    """401: no valid credential."""

    code, reason = 401, "Unauthorized"

    def __init__(self, message: str = "Unauthorized", **kwargs: Any) -> None:
        super().__init__(message, **kwargs)


class Forbidden(StatusError):
    """403: known, but not allowed."""

    code, reason = 403, "Forbidden"

    @classmethod
    def of(cls, resource: str, name: str, group: str = "", why: str = "") -> Self:
        """`pods "x" is forbidden: why`; without a name only the resource is told."""
        named = f'{qualified(resource, group)} "{name}"' if name else qualified(resource, group)
        return cls(f"{named} is forbidden: {why}", details=_details(name, group, resource))


class MethodNotAllowed(StatusError):
    """405."""

    code, reason = 405, "MethodNotAllowed"

    def __init__(self, message: str = "the server does not allow this method on the requested resource", **kw: Any):
        super().__init__(message, **{"details": {}, **kw})


class NotAcceptable(StatusError):
    """406: none of the accepted media types can be produced."""

    code, reason = 406, "NotAcceptable"


class Gone(StatusError):
    """410 with reason Gone: the thing is gone for good."""

    code, reason = 410, "Gone"


class Expired(Gone):
    """410: the resourceVersion or continue token is older than what is kept; list again."""

    reason = "Expired"

    @classmethod
    def of_revision(cls, asked: int, oldest: int) -> Self:
        return cls(f"too old resource version: {asked} ({oldest})")


class TooLarge(StatusError):
    """413."""

    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(StatusError):
    """415."""

    code, reason = 415, "UnsupportedMediaType"


class TooManyRequests(StatusError):
    """429."""

    code, reason = 429, "TooManyRequests"

    @classmethod
    def of(cls, message: str, retry_after_seconds: int = 1, causes: Sequence[Cause] = ()) -> Self:
        return cls(message, details=_details(causes=causes, retry_after_seconds=retry_after_seconds))


class InternalError(StatusError):
    """500."""

    code, reason = 500, "InternalError"

    @classmethod
    def of(cls, why: str) -> Self:
        """`Internal error occurred: why`."""
        return cls(f"Internal error occurred: {why}", details=_details(causes=[Cause("", why)]))


class ServerTimeout(StatusError):
    """500 with reason ServerTimeout: the server could not finish in time; retry."""

    code, reason = 500, "ServerTimeout"


class ServiceUnavailable(StatusError):
    """503; the client raises it too when the server cannot be reached."""

    code, reason = 503, "ServiceUnavailable"


class Timeout(StatusError):
    """504: the request may or may not have been carried out."""

    code, reason = 504, "Timeout"

    @classmethod
    def resource_version_too_large(cls, asked: int, current: int, retry_after_seconds: int = 1) -> Self:
        """A read asks for a revision that the server has not seen yet."""
        cause = Cause("ResourceVersionTooLarge", "Too large resource version")
        return cls(
            f"Too large resource version: {asked}, current: {current}",
            details=_details(causes=[cause], retry_after_seconds=retry_after_seconds),
        )
