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


_detached: set[asyncio.Future[Any]] = set()  # verbs whose client left: the loop alone would let them be collected


def _let_finish(task: asyncio.Future[Any]) -> None:
    """Keep a verb running whose client has left, and look at its result so that nobody complains."""
    _detached.add(task)
    task.add_done_callback(_detached.discard)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())


def verb(
    method: Callable[[Any, Request, Context], Awaitable[Response]],
) -> Callable[[Any, Request, Context], Awaitable[Response]]:
    """Turn faults of a unary method into its RPC status; anything unforeseen is INTERNAL and logged once, here.

    A client that gives up does not leave a verb half done: every verb runs to its own end.
    """
    return _wrap(method, detach=True)


def cancellable_verb(
    method: Callable[[Any, Request, Context], Awaitable[Response]],
) -> Callable[[Any, Request, Context], Awaitable[Response]]:
    """As `verb`, for methods that end when their client leaves (a command that nobody waits for any more)."""
    return _wrap(method, detach=False)


def _wrap(
    method: Callable[[Any, Request, Context], Awaitable[Response]], *, detach: bool
) -> Callable[[Any, Request, Context], Awaitable[Response]]:
    @functools.wraps(method)
    async def wrapped(self: Any, request: Request, context: Context) -> Response:
        try:
            if not detach:
                return await method(self, request, context)
            task = asyncio.ensure_future(method(self, request, context))
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                _let_finish(task)
                raise
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
