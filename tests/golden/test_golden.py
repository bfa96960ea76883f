"""Every recorded scenario against our server. What we answer differently stands in `differences.json`."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.golden import conversations
from tests.golden.client import Client
from tests.golden.compare import Difference, compare
from tests.golden.replay import Aborted, Runner
from tests.golden.servers import serving

DIFFERENCES = Path(__file__).with_name("differences.json")
SCENARIOS = {name: conversations.load(name) for name in conversations.names()}
ALONE = [name for name, scenario in SCENARIOS.items() if "controllers" not in scenario["needs"]]
CONTROLLED = [name for name, scenario in SCENARIOS.items() if "controllers" in scenario["needs"]]


@pytest.fixture(scope="session")
def alone() -> Iterator[Client]:
    with serving(controllers=False) as client:
        yield client


@pytest.fixture(scope="session")
def controlled() -> Iterator[Client]:
    with serving(controllers=True) as client:
        yield client


def known() -> dict[str, dict[str, str]]:
    """scenario → step → why we differ."""
    found: dict[str, dict[str, str]] = json.loads(DIFFERENCES.read_text())
    return found


def replay(client: Client, scenario: dict[str, Any]) -> dict[str, list[Difference]]:
    """The differences of every step that has any."""
    runner, found = Runner(client, scenario), dict[str, list[Difference]]()
    aborted = ""
    try:
        runner.setup()
        for step in scenario["steps"]:
            if aborted:
                found[step["id"]] = [Difference("(not run)", "", aborted)]
                continue
            try:
                differences = compare(step["expect"], runner.run_step(step))
                if not runner.awaited:
                    differences.append(Difference("(until)", step["until"], "did not come in time"))
            except (Aborted, OSError, http.client.HTTPException) as error:
                aborted = f"after {step['id']}: {error}"
                differences = [Difference("(step)", "", aborted)]
            if differences:
                found[step["id"]] = differences
    finally:
        runner.cleanup()
    return found


def judge(name: str, client: Client) -> None:
    found, excused = replay(client, SCENARIOS[name]), known().get(name, {})
    problems = [f"{step}: {each}" for step, all_ in found.items() if step not in excused for each in all_]
    problems += [f"{step}: is listed as a difference, and is none" for step in excused if step not in found]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("name", ALONE)
def test_the_api_server(name: str, alone: Client) -> None:
    judge(name, alone)


@pytest.mark.parametrize("name", CONTROLLED)
def test_the_api_server_and_its_controllers(name: str, controlled: Client) -> None:
    judge(name, controlled)


def test_differences_name_steps_that_exist() -> None:
    steps = {name: {step["id"] for step in scenario["steps"]} for name, scenario in SCENARIOS.items()}
    assert SCENARIOS and not [
        (name, step) for name, listed in known().items() for step in listed if step not in steps.get(name, ())
    ]
    assert all(reason for listed in known().values() for reason in listed.values())
