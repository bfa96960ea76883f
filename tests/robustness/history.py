"""The record of a run: operations with their outcome, and every event of every watch, in the order they were seen."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Operation:
    """One write. `revision` is the answer's; None when nobody knows the outcome, or when it was refused (`failed`)."""

    kind: str  # create, update, delete
    key: str
    value: str
    revision: int | None
    failed: bool = False


@dataclass(frozen=True)
class Event:
    """One event of one watch."""

    kind: str  # ADDED, MODIFIED, DELETED
    key: str
    value: str
    revision: int


@dataclass
class Watch:
    """What one logical watch told over all its connections."""

    name: str
    start: int
    events: list[Event] = field(default_factory=list)
    resumed: int = 0


@dataclass
class History:
    """The whole record; safe to append to from several threads."""

    operations: list[Operation] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)
    final: dict[str, tuple[str, int]] = field(default_factory=dict)
    final_revision: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def record(self, operation: Operation) -> None:
        with self.lock:
            self.operations.append(operation)

    def save(self, path: Path) -> None:
        """Write the record as JSON, so that a failed run can be judged again."""
        plain = {
            "operations": [asdict(each) for each in self.operations],
            "watches": [asdict(each) for each in self.watches],
            "final": self.final,
            "finalRevision": self.final_revision,
        }
        path.write_text(json.dumps(plain))

    @classmethod
    def load(cls, path: Path) -> History:
        """Inverse of `save`."""
        plain = json.loads(path.read_text())
        return cls(
            operations=[Operation(**each) for each in plain["operations"]],
            watches=[
                Watch(each["name"], each["start"], [Event(**event) for event in each["events"]], each["resumed"])
                for each in plain["watches"]
            ],
            final={key: (value, revision) for key, (value, revision) in plain["final"].items()},
            final_revision=plain["finalRevision"],
        )
