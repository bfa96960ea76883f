"""Connections to webhooks: few are kept, however many webhooks come and go."""

from __future__ import annotations

from typing import Any, cast

from apiserver.admission.webhooks.call import TARGETS, Caller


class Connection:
    closed = False

    def close(self) -> None:
        self.closed = True


def test_connections_of_targets_that_are_asked_no_more_are_closed() -> None:
    caller = Caller(cast(Any, None))
    made = [Connection() for _ in range(TARGETS + 10)]
    for number, connection in enumerate(made):
        caller._known(("h", number, "n", "")).append(cast(Any, connection))
        caller._known(("h", 0, "n", ""))  # is asked all the time
    assert [number for number, each in enumerate(made) if each.closed] == list(range(1, 11))
    assert len(caller._idle) == TARGETS
