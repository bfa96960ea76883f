"""gRPC between components: channels and servers with our options, and Status errors across the wire.

A failed call carries metav1.Status as JSON in the trailing metadata `kubernetes-status-bin`; `status_of` turns any
RPC error into the matching StatusError, so callers see the same errors as REST clients. grpc itself is imported when
the first channel or server is made: a process may fork before, never after (grpc/grpc#13873).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from machinery.errors import ServiceUnavailable, StatusError, Timeout
from machinery.tls import KeyPair

if TYPE_CHECKING:
    import grpc
    import grpc.aio

STATUS_KEY = "kubernetes-status-bin"
MAX_MESSAGE = 64 * 1024 * 1024  # a LIST of everything is one message
MAX_STATUS = 6 * 1024  # trailing metadata is a header: 8 KiB in all

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_metadata_size", 32 * 1024),
)
_CHANNEL_OPTIONS = (
    *_OPTIONS,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
_SERVER_OPTIONS = (
    *_OPTIONS,
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    409: "ABORTED",
    410: "OUT_OF_RANGE",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def channel(
    target: str, pair: KeyPair | None = None, *, server_name: str = "", authority: Path | None = None
) -> grpc.aio.Channel:
    """A channel to `host:port` (mTLS when `pair` is given, TLS as nobody with `authority` alone) or `unix:PATH`.

    `server_name` overrides the name checked. Raises OSError when a file cannot be read.
    """
    import grpc
    import grpc.aio

    options = list(_CHANNEL_OPTIONS)
    if pair is None and authority is None:
        return grpc.aio.insecure_channel(target, options=options)
    ca: bytes | None = authority.read_bytes() if authority is not None else None
    cert: bytes | None = None
    key: bytes | None = None
    if pair is not None:
        ca, cert, key = pair.read()
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))
    credentials = grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)
    return grpc.aio.secure_channel(target, credentials, options=options)


def server() -> grpc.aio.Server:
    """A server without ports; see `add_port`."""
    import grpc.aio

    return grpc.aio.server(options=list(_SERVER_OPTIONS))


def add_port(serving: grpc.aio.Server, address: str, pair: KeyPair | None = None) -> int:
    """Listen on `host:port` (mTLS, client certificate demanded) or `unix:PATH`; returns the port. Raises OSError."""
    import grpc

    try:
        if pair is None:
            port = serving.add_insecure_port(address)
        else:
            ca, cert, key = pair.read()
            port = serving.add_secure_port(
                address, grpc.ssl_server_credentials([(key, cert)], root_certificates=ca, require_client_auth=True)
            )
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from error
    if port == 0:
        raise OSError(f"cannot listen on {address}")
    return port


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: StatusError) -> NoReturn:
    """End the call with a Kubernetes Status."""
    import grpc

    status = error.to_status()
    raw = msgspec.json.encode(status)
    if len(raw) > MAX_STATUS:  # too many causes for a header: the message tells them all, cut to size
        status.pop("details", None)
        status["message"] = status["message"][: MAX_STATUS // 2]
        raw = msgspec.json.encode(status)
    code = getattr(grpc.StatusCode, _CODES.get(error.code, "INTERNAL"))
    await context.abort(code, error.message[:1024], trailing_metadata=((STATUS_KEY, raw),))
    raise AssertionError("abort returned")


def status_of(error: grpc.aio.AioRpcError) -> StatusError:
    """The StatusError that an RPC error tells; a call that never reached the server is ServiceUnavailable."""
    import grpc

    for key, value in error.trailing_metadata() or ():
        if key == STATUS_KEY:
            return StatusError.from_status(msgspec.json.decode(value))
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Timeout(error.details() or "deadline exceeded")
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return ServiceUnavailable(error.details() or "server is away")
    return StatusError(f"{error.code().name}: {error.details()}")


def peer_identity(context: grpc.aio.ServicerContext[Any, Any]) -> bytes | None:
    """The verified client certificate (PEM) of a call, or None without mTLS."""
    pem = context.auth_context().get("x509_pem_cert")
    return next(iter(pem), None) if pem else None
