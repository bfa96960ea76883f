"""A whole API server inside the test process: real sockets, real TLS, memory store or real etcd.

    async with running_apiserver() as server:
        answer = await server.rest().get("/api/v1/namespaces")
        client = Client.connect(server.grpc_target, server.admin_tls)

Certificates are made once per test session (`shared_pki`): they are what takes time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from apiserver.assembly import ApiServer, Settings
from apiserver.audit.auditor import Auditor
from machinery.clock import Clock, RealClock
from machinery.tls import CertificateAuthority, KeyPair

ADMIN_TOKEN = "admin-token"
USER_TOKEN = "user-token"
TOKENS = f'{ADMIN_TOKEN},admin,uid-admin,"system:masters"\n{USER_TOKEN},alice,uid-alice,"dev,ops"\n'
DEADLINE = 60.0


async def eventually(condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
    """Wait until a condition holds, looking often. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  what is waited for has no event to wait on
            await asyncio.sleep(0.005)


async def until_status(rest: RestClient, path: str, wanted: Callable[[int], bool]) -> int:
    """GET until the status is as wanted: roles, for one, reach the authorizer a moment after they are written."""
    async with asyncio.timeout(DEADLINE):
        while True:
            status = (await rest.get(path)).status
            if wanted(status):
                return status
            await asyncio.sleep(0.005)


@dataclass(frozen=True)
class Pki:
    """The certificates of a test cluster."""

    folder: Path
    authority: CertificateAuthority
    serving: KeyPair
    front_proxy: KeyPair

    @property
    def ca(self) -> Path:
        return self.authority.cert_path

    @property
    def token_file(self) -> Path:
        return self.folder / "tokens.csv"

    @property
    def service_account_key(self) -> Path:
        return self.folder / "service-account.key"

    def client(self, common_name: str, *organizations: str) -> KeyPair:
        """A client certificate, made once."""
        name = f"client-{common_name}-{'-'.join(organizations)}".replace(":", "_").replace("/", "_")
        if (self.folder / f"{name}.crt").exists():
            return KeyPair(self.ca, self.folder / f"{name}.crt", self.folder / f"{name}.key")
        return self.authority.issue_to(name, common_name, organizations)


@cache
def shared_pki() -> Pki:
    """One authority for all tests of the process."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    folder = Path(tempfile.mkdtemp(prefix="nanokube-test-pki-"))
    authority = CertificateAuthority.create(folder)
    names = ["127.0.0.1", "localhost"]
    serving = authority.issue_to("apiserver", "kube-apiserver", (), names, client=False, server=True)
    front = CertificateAuthority.create(folder / "front-proxy", "front-proxy-ca").issue_to(
        "client", "front-proxy-client"
    )
    pki = Pki(folder, authority, serving, front)
    pki.token_file.write_text(TOKENS)
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pki.service_account_key.write_bytes(pem)
    return pki


@dataclass
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, list[str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str:
        return self.headers.get(name, [""])[0]


@dataclass
class RestClient:
    """A small HTTP/1.1 client that hides nothing: it sends what it is told, one connection per request."""

    host: str
    port: int
    ca: Path
    token: str = ADMIN_TOKEN
    pair: KeyPair | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca))
        if self.pair is not None:
            context.load_cert_chain(self.pair.cert, self.pair.key)
        return context

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port, ssl=self._tls(), server_hostname="localhost")

    def head(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        """The request as bytes."""
        sent = {"host": "localhost", "connection": "close", "user-agent": "tester/1.0", **self.headers}
        if self.token and self.pair is None:
            sent["authorization"] = f"Bearer {self.token}"
        if body or method in ("POST", "PUT", "PATCH"):
            sent["content-length"] = str(len(body))
            sent["content-type"] = "application/json"
        sent.update({key.lower(): value for key, value in headers.items()})
        lines = [f"{method} {path} HTTP/1.1", *(f"{key}: {value}" for key, value in sent.items()), "", ""]
        return "\r\n".join(lines).encode() + body

    async def request(
        self, method: str, path: str, body: Any = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send and read the whole answer."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with asyncio.timeout(DEADLINE):
            reader, writer = await self.connect()
            try:
                writer.write(self.head(method, path, raw, headers or {}))
                status, received = await _read_head(reader)
                parts = [part async for part in _read_body(reader, received)]
                return Answer(status, received, b"".join(parts))
            finally:
                writer.close()

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.request("GET", path, headers={key.replace("_", "-"): value for key, value in headers.items()})

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return await self.request("POST", path, body, named)

    @contextlib.asynccontextmanager
    async def watch(self, path: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[AsyncIterator[Any]]:
        """The events of a watch, decoded, as they come. Leaving the block closes the connection."""
        async with asyncio.timeout(DEADLINE):
            reader, writer = await self.connect()
            writer.write(self.head("GET", path, b"", headers or {}))
            status, received = await _read_head(reader)
        assert status == 200, (status, b"".join([part async for part in _read_body(reader, received)]))
        try:
            yield _events(_read_body(reader, received))
        finally:
            writer.close()


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, list[str]]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers: dict[str, list[str]] = {}
    for line in filter(None, lines[1:]):
        key, _, value = line.partition(":")
        headers.setdefault(key.lower(), []).append(value.strip())
    return int(lines[0].split(" ")[1]), headers


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, list[str]]) -> AsyncIterator[bytes]:
    if headers.get("transfer-encoding") == ["chunked"]:
        while size := int(await reader.readline(), 16):
            yield (await reader.readexactly(size + 2))[:-2]
    elif "content-length" in headers:
        yield await reader.readexactly(int(headers["content-length"][0]))


async def _events(body: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    rest = b""
    async for part in body:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield json.loads(line)


@dataclass
class RunningApiServer:
    """What tests need to know of a running server."""

    server: ApiServer
    pki: Pki
    port: int
    grpc_port: int

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def grpc_target(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def ca(self) -> Path:
        return self.pki.ca

    @property
    def admin_tls(self) -> KeyPair:
        return self.pki.client("admin", "system:masters")

    def rest(self, token: str = ADMIN_TOKEN, pair: KeyPair | None = None, **headers: str) -> RestClient:
        """A client by token (default: the administrator) or by certificate; token "" is anonymous."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return RestClient("127.0.0.1", self.port, self.ca, token, pair, named)


@contextlib.asynccontextmanager
async def running_apiserver(
    store: str = "memory",
    *,
    clock: Clock | None = None,
    etcd: str = "",
    kubelet: bool = False,
    service_range: str = "10.96.0.0/16",
    auditor: Auditor | None = None,
    shutdown_delay: float = 0.0,
    advertise: str = "127.0.0.1",
    master_lease: float = 15.0,
) -> AsyncIterator[RunningApiServer]:
    """An API server that is ready. `store="etcd"` needs a target in `etcd`."""
    if (store == "etcd") != bool(etcd):
        raise ValueError('store="etcd" and a target belong together')
    pki = shared_pki()
    settings = Settings(
        etcd=etcd,
        binds=("127.0.0.1:0",),
        grpc_binds=("127.0.0.1:0",),
        tls=KeyPair(pki.ca, pki.serving.cert, pki.serving.key),
        token_file=pki.token_file,
        service_range=service_range,
        service_account_key=pki.service_account_key,
        advertise=advertise,
        proxy_pair=pki.front_proxy,
        kubelet_pair=pki.client("kube-apiserver-kubelet-client", "system:masters") if kubelet else None,
        auditor=auditor,
        shutdown_delay=shutdown_delay,
        master_lease=master_lease,
    )
    server = ApiServer(settings, clock or RealClock())
    async with server.running():
        async with asyncio.timeout(DEADLINE):
            await server.wait_ready()
        port = int(server.rest_addresses[0].rpartition(":")[2])
        yield RunningApiServer(server, pki, port, server.grpc_ports[0])
