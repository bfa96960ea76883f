"""Plain HTTPS with the admin's certificate: enough to see whether a cluster is ready and to keep a few objects."""

from __future__ import annotations

import http.client
import ssl

from cli import pki
from cli.layout import ClusterConfig, ClusterPaths


class AdminClient:
    """Plain HTTPS requests with the admin's certificate: enough to see whether a cluster is ready."""

    def __init__(self, config: ClusterConfig, paths: ClusterPaths) -> None:
        self._port = config.rest_port
        self._context = ssl.create_default_context(cafile=str(paths.pki / "ca.crt"))
        self._context.load_cert_chain(paths.pki / f"{pki.ADMIN}.crt", paths.pki / f"{pki.ADMIN}.key")

    def get(self, path: str) -> tuple[int, bytes]:
        """(code, body). Raises OSError when nobody answers."""
        return self.request("GET", path)

    def request(
        self, method: str, path: str, body: bytes | None = None, content_type: str = "application/json"
    ) -> tuple[int, bytes]:
        """(code, body). Raises OSError when nobody answers."""
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=5, context=self._context)
        try:
            connection.request(method, path, body, {"Content-Type": content_type} if body is not None else {})
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()
