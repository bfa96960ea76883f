"""CSI's errors: plain gRPC codes, as the specification lists them for each call.

Owns the mapping from what goes wrong below (StatusErrors of the cloud, OSErrors of the kernel) to those codes.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from machinery import errors, log
from machinery.log import kv

_log = log.get(__name__)
_CODES: Final[tuple[tuple[type[errors.StatusError], str], ...]] = (
    (errors.NotFound, "NOT_FOUND"),
    (errors.AlreadyExists, "ALREADY_EXISTS"),
    (errors.Conflict, "FAILED_PRECONDITION"),
    (errors.BadRequest, "INVALID_ARGUMENT"),
    (errors.TooManyRequests, "RESOURCE_EXHAUSTED"),
    (errors.ServiceUnavailable, "UNAVAILABLE"),
    (errors.Timeout, "DEADLINE_EXCEEDED"),
)
_Answer = TypeVar("_Answer")
_Method = Callable[[Any, Any, Any], Awaitable[_Answer]]


class CsiError(Exception):
    """The call ends with this gRPC code (its name) and message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def invalid(message: str) -> CsiError:
    return CsiError("INVALID_ARGUMENT", message)


def code_of(error: errors.StatusError) -> str:
    """The code for what the cloud has said."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), "INTERNAL")


def call(method: _Method[_Answer]) -> _Method[_Answer]:
    """A servicer's method that may raise CsiError, StatusError or OSError."""

    @functools.wraps(method)
    async def answered(self: Any, request: Any, context: Any) -> _Answer:
        import grpc

        try:
            return await method(self, request, context)
        except CsiError as error:
            code, message = error.code, str(error)
        except errors.StatusError as error:
            code, message = code_of(error), error.message
        except OSError as error:
            code, message = "INTERNAL", str(error)
        except ValueError as error:  # a path or a name that no kernel takes
            code, message = "INVALID_ARGUMENT", str(error)
        _log.info("Refused", extra=kv(call=method.__name__, code=code, why=message))
        await context.abort(getattr(grpc.StatusCode, code), message[:1024])
        raise AssertionError("abort returned")

    return answered


def required(request: Any, *fields: str) -> None:
    """Raises INVALID_ARGUMENT for fields that are not given."""
    for name in fields:
        value = getattr(request, name)
        missing = not request.HasField(name) if hasattr(value, "DESCRIPTOR") else not value
        if missing:
            raise invalid(f"{name} is missing in the request")
