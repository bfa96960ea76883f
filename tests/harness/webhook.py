"""A webhook server in the test's own loop: real HTTPS, answers by a function of the review's request."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import h11

from tests.harness.apiserver import shared_pki

Obj = dict[str, Any]
Answer = Callable[[Obj], Obj]


class WebhookServer:
    """`answer` makes the review's response; `requests` remembers what was asked."""

    def __init__(self, port: int, bundle: str) -> None:
        self.port = port
        self.bundle = bundle
        self.answer: Answer = lambda request: {"allowed": True}
        self.requests: list[Obj] = []
        self.paths: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def client(self, path: str = "/review") -> Obj:
        """A clientConfig with a URL."""
        return {"url": f"https://127.0.0.1:{self.port}{path}", "caBundle": self.bundle}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http, body = h11.Connection(h11.SERVER), b""
        try:
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(await reader.read(65536))
                elif isinstance(event, h11.Request):
                    self.paths.append(event.target.decode())
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    await self.gate.wait()
                    review, body = json.loads(body), b""
                    asked = review.pop("request")
                    self.requests.append(asked)
                    review["response"] = {"uid": asked["uid"], **self.answer(asked)}
                    out = json.dumps(review).encode()
                    head = h11.Response(status_code=200, headers=[("content-length", str(len(out)))])
                    for part in (head, h11.Data(data=out), h11.EndOfMessage()):
                        writer.write(http.send(part) or b"")
                    http.start_next_cycle()
                else:
                    break
        except (OSError, h11.ProtocolError):
            pass
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def running_webhook(*names: str) -> AsyncIterator[WebhookServer]:
    """A webhook on 127.0.0.1 whose certificate is also for these names."""
    pki = shared_pki()
    sans = sorted({"127.0.0.1", "localhost", *names})
    pair = pki.authority.issue_to("webhook-" + "-".join(names), "webhook", sans=sans, server=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    made = WebhookServer(0, base64.b64encode(pki.ca.read_bytes()).decode())
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
