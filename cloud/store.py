"""The cloud's memory: one JSON file in the cluster's folder, replaced atomically.

Owns the file; a damaged one is an error, never an empty cloud: forgetting machines would leave them behind.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from cloud.model import State
from machinery.tls import write_private


class DamagedState(Exception):
    """The file is no state."""


class Store:
    """`load` once, `save` after every change; equal states are written once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = b""

    def load(self) -> State | None:
        """None when there is no file yet. Raises DamagedState."""
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            state = msgspec.json.decode(raw, type=State)
        except msgspec.MsgspecError as error:
            raise DamagedState(f"{self._path}: {error}") from error
        self._last = raw
        return state

    def save(self, state: State) -> None:
        """Write what differs from the last time. Raises OSError."""
        raw = msgspec.json.encode(state)
        if raw != self._last:
            write_private(self._path, raw)
            self._last = raw
