"""A real etcd for tests: found where the product keeps it, started on a Unix socket, killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

TOOLS = Path("/var/lib/nanokube/tools")


def etcd_binary() -> Path:
    """The newest place wins: $NANOKUBE_TOOLS, the product's tools folder, PATH. Raises RuntimeError."""
    for root in (os.environ.get("NANOKUBE_TOOLS"), TOOLS):
        if root:
            for found in sorted(Path(root).rglob("bin/etcd")):
                if found.is_file() and os.access(found, os.X_OK):
                    return found
    on_path = shutil.which("etcd")
    if on_path:
        return Path(on_path)
    raise RuntimeError(
        "no etcd binary: looked in $NANOKUBE_TOOLS, /var/lib/nanokube/tools and PATH; "
        "`./nanokube up --only apiserver` brings one"
    )


class EtcdServer:
    """One member with a data folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._binary = etcd_binary()
        self._folder = folder
        self._socket = folder / "etcd.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> str:
        """gRPC target."""
        return f"unix:{self._socket}"

    def start(self) -> None:
        """Start and wait until the socket is there."""
        url = f"unix://{self._socket}"
        with open(self._folder / "etcd.log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._binary),
                    f"--data-dir={self._folder / 'data'}",
                    f"--listen-client-urls={url}",
                    "--advertise-client-urls=http://localhost:2379",
                    f"--listen-peer-urls=unix://{self._folder / 'peer.sock'}",
                    "--initial-advertise-peer-urls=http://localhost:2380",
                    "--initial-cluster=default=http://localhost:2380",
                    "--heartbeat-interval=20",
                    "--election-timeout=200",
                    "--max-txn-ops=4096",
                    "--log-level=warn",
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 20
        while not self._socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                text = (self._folder / "etcd.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"etcd did not start:\n{text}")
            time.sleep(0.01)

    def kill(self) -> None:
        """kill -9, as a power cut would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None
            self._socket.unlink(missing_ok=True)
            (self._folder / "peer.sock").unlink(missing_ok=True)

    def pause(self) -> None:
        """Freeze the process: connections stay, answers stop."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
