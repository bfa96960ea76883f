"""HTTPS for reviews: POSTs of the API server with bounded bodies, answered by a function.

Owns what becomes of a request; the connections are `aggregated.door`'s. Who asks does not matter: an answer tells
nothing but what a pod would be given. Run by app.py.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final

from aggregated import door
from aggregated.door import Asked, Told
from machinery import log
from machinery.log import kv
from machinery.tls import KeyPair
from vertical_autoscaler.admission import BadReview

MAX_BODY: Final = 8 << 20
TEXT: Final = "text/plain; charset=utf-8"
Review = Callable[[bytes], bytes]
_log = log.get(__name__)


class Door(door.Door):
    """Listens, and lets `review` answer. It raises BadReview for a body that makes no sense."""

    def __init__(self, review: Review, pair: KeyPair) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        tls.load_cert_chain(pair.cert, pair.key)
        super().__init__(self._judge, tls, MAX_BODY)
        self._review = review

    async def _judge(self, asked: Asked) -> Told:
        if asked.method != "POST":
            return Told(405, b"reviews are POSTed\n", TEXT)
        if asked.body is None:
            return Told(413, b"the review is too large\n", TEXT)
        try:
            return Told(200, self._review(asked.body))
        except BadReview as error:
            return Told(400, f"{error}\n".encode(), TEXT)
        except Exception as error:  # noqa: BLE001  logged; the API server goes on without us
            _log.exception("Failed a review", extra=kv(error=error))
            return Told(500, b"internal error\n", TEXT)
