"""The one error family of the runtime: a gRPC code by name and a sentence for the user.

Raised everywhere below the gRPC door, which alone turns it into an RPC status.
"""

from __future__ import annotations


class RuntimeFault(Exception):
    """Something the caller of a CRI verb must be told. `code` is a gRPC status code's name."""

    code = "UNKNOWN"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class UnknownId(RuntimeFault):
    """No such sandbox, container or image."""

    code = "NOT_FOUND"


class BadConfig(RuntimeFault):
    """The request can never work as it is."""

    code = "INVALID_ARGUMENT"


class WrongState(RuntimeFault):
    """The verb does not fit the object's state."""

    code = "FAILED_PRECONDITION"


class AlreadyThere(RuntimeFault):
    """An object with this identity exists."""

    code = "ALREADY_EXISTS"


class PullDenied(RuntimeFault):
    """The registry refused these credentials, or any."""

    code = "UNAUTHENTICATED"


class PullUnknown(RuntimeFault):
    """The registry does not have the image."""

    code = "NOT_FOUND"


class PullUnreachable(RuntimeFault):
    """The registry could not be reached in time."""

    code = "UNAVAILABLE"
