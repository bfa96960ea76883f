"""The server that is fuzzed: a real etcd and `python -m apiserver` as a process of its own, without TLS on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

from tests.contract.etcd_server import EtcdServer

TOKEN = "fuzz-token"
START_SECONDS = 60.0


class Fuzzed(Protocol):
    """A server that is fuzzed, as the loop sees it."""

    host: str
    port: int

    @property
    def alive(self) -> bool: ...
    def rss(self) -> float: ...
    def memory(self) -> dict[str, float]: ...
    def log(self) -> str: ...


class Target:
    """Started by `start`, ended by `stop`; `log` is what the server has said."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._etcd = EtcdServer(folder)
        self._process: subprocess.Popen[bytes] | None = None
        self.host, self.port = "127.0.0.1", 0
        self.log_path = folder / "apiserver.log"

    def start(self) -> None:
        self._etcd.start()
        with socket.socket() as probe:
            probe.bind((self.host, 0))
            self.port = probe.getsockname()[1]
        tokens = self._folder / "tokens.csv"
        tokens.write_text(f'{TOKEN},fuzzer,uid-fuzzer,"system:masters"\n')
        argv = [sys.executable, "-m", "apiserver", f"--etcd={self._etcd.target}", f"--bind={self.host}:{self.port}"]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*argv, f"--token-auth-file={tokens}"], stdout=log, stderr=log, cwd=Path(__file__).parents[2]
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the API server did not start:\n{self.log()[-3000:]}")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=5) as connection:
                connection.sendall(b"GET /readyz HTTP/1.0\r\nhost: a\r\n\r\n")
                return b" 200 " in connection.recv(64)
        except OSError:
            return False

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def rss(self) -> float:
        """MiB resident."""
        assert self._process is not None
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def memory(self) -> dict[str, float]:
        """MiB of the server's address space: `Rss`, `Pss`, `Private_Dirty`; empty once it has ended."""
        assert self._process is not None
        try:
            text = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return {}
        rows = (line.split() for line in text.splitlines()[1:])
        return {row[0][:-1]: int(row[1]) / 1024 for row in rows if row[0] in ("Rss:", "Pss:", "Private_Dirty:")}

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def stop(self) -> int:
        """SIGTERM; the exit code. -9 when it had to be killed."""
        code = 0
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                code = self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                code = self._process.wait(10)
        self._etcd.kill()
        return code
