"""A node whose disk is full still ends its containers."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from proto.cri.v1 import cri_pb2 as cri
from runtime.containers import Container, Containers
from runtime.records import CREATED, EXITED, ContainerRecord


@pytest.fixture
def unwritable(tmp_path: Path) -> tuple[Containers, Container, list[Any]]:
    """A container whose record cannot be written: its folder is not there."""
    events: list[Any] = []
    made: Any = Mock()
    containers = Containers(
        tmp_path, made, made, made, made, publish=lambda container, event: events.append(event), parallel=1
    )
    record = ContainerRecord(
        id="c" * 64, sandbox_id="s", created_at=1, image_id="i", image_ref="i", cgroup="x", log_path="", state=CREATED
    )
    return containers, Container(record, cri.ContainerConfig()), events


async def test_a_start_that_cannot_be_noted_ends_the_container(
    unwritable: tuple[Containers, Container, list[Any]],
) -> None:
    containers, container, events = unwritable
    with pytest.raises(FileNotFoundError):
        await containers.start(container)
    assert (container.record.state, container.record.reason) == (EXITED, "StartError")
    assert container.exited.is_set()
    assert container.cleaned.is_set()
    assert events == [cri.CONTAINER_STOPPED_EVENT]


async def test_a_stop_that_cannot_be_noted_is_a_stop(unwritable: tuple[Containers, Container, list[Any]]) -> None:
    containers, container, events = unwritable
    await containers.stop(container, 0)
    assert container.record.state == EXITED
    assert container.cleaned.is_set()
    assert events == [cri.CONTAINER_STOPPED_EVENT]
