"""How faults become gRPC statuses: the one place where both gRPC services of the runtime end a call with an error."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
import grpc.aio

from machinery.log import get, kv
from runtime.faults import RuntimeFault

log = get("runtime.grpc")
Request = TypeVar("Request")
Response = TypeVar("Response")
Context = grpc.aio.ServicerContext[Any, Any]


def first_fault(error: BaseException) -> BaseException:
    """The error inside nested groups that the caller should be told."""
    while isinstance(error, BaseExceptionGroup):
        faults = [each for each in error.exceptions if isinstance(each, RuntimeFault)]
        error = faults[0] if faults else error.exceptions[0]
    return error


def verb(
    method: Callable[[Any, Request, Context], Awaitable[Response]],
) -> Callable[[Any, Request, Context], Awaitable[Response]]:
    """Turn faults of a unary method into its RPC status; anything unforeseen is INTERNAL and logged once, here."""

    @functools.wraps(method)
    async def wrapped(self: Any, request: Request, context: Context) -> Response:
        try:
            # A client that gives up must not leave a verb half done: every verb runs to its own end.
            return await asyncio.shield(asyncio.ensure_future(method(self, request, context)))
        except asyncio.CancelledError:
            raise
        except BaseException as caught:
            error = first_fault(caught)
            if isinstance(error, RuntimeFault):
                code, message = getattr(grpc.StatusCode, error.code), error.message
            elif isinstance(error, OSError):
                code, message = grpc.StatusCode.UNKNOWN, _describe(error)
                log.warning("Verb failed", extra=kv(verb=method.__name__, error=message))
            else:
                code, message = grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
                log.exception("Verb failed", exc_info=error, extra=kv(verb=method.__name__))
            await context.abort(code, message[:4096])
            raise AssertionError("abort returned") from None

    return wrapped


def _describe(error: OSError) -> str:
    parts = [error.strerror or str(error)]
    if error.filename:
        parts.append(str(error.filename))
    return ": ".join(parts)
