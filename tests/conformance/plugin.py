"""Conformance by name: which of upstream's conformance tests our tests stand for, and how many of them passed.

    @pytest.mark.conformance("[sig-apps] Job should delete a job [Conformance]")

A test may carry several names and a name several tests. A name is passed when every test that carries it passed,
failed when one failed, and not attempted otherwise (skipped and deselected tests prove nothing). `names.txt` holds the
names of Kubernetes 1.36's list; a name that is not in it ends the run. `tests/conftest.py` registers the plugin.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

NAMES = Path(__file__).parent / "names.txt"
MARKER = "conformance"
OPTION = "--conformance-missing"


@cache
def upstream_names() -> tuple[str, ...]:
    """All names, in upstream's order."""
    return tuple(NAMES.read_text().splitlines())


def sig_of(name: str) -> str:
    """`sig-apps` of `[sig-apps] Job …`."""
    found = re.match(r"\[(sig-[a-z-]+)\] ", name)
    assert found, f"no SIG in {name!r}"
    return found[1]


@dataclass(frozen=True)
class Score:
    """How the names of one SIG fared."""

    passed: int = 0
    failed: int = 0
    total: int = 0

    @property
    def missing(self) -> int:
        return self.total - self.passed - self.failed

    def line(self, sig: str) -> str:
        counts = f"passed {self.passed} / failed {self.failed} / not attempted {self.missing} of {self.total}"
        return f"conformance {sig}: {counts}"


def verdict(carriers: Iterable[str], outcomes: Mapping[str, str]) -> str:
    """`passed`, `failed` or `` (not attempted) of a name, from the outcomes of the tests (by node id) that carry it."""
    found = [outcomes.get(each, "") for each in carriers]
    if "failed" in found:
        return "failed"
    return "passed" if found and all(each == "passed" for each in found) else ""


class Conformance:
    """Collects carriers and outcomes of one run and prints the score at its end."""

    def __init__(self, names: Iterable[str], list_missing: bool = False) -> None:
        self._carriers: dict[str, list[str]] = {name: [] for name in names}
        self._outcomes: dict[str, str] = {}
        self._list_missing = list_missing

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Before anything is deselected: a name is passed only with all the tests that carry it."""
        unknown = []
        for item in items:
            for marker in item.iter_markers(MARKER):
                for name in marker.args:
                    if name in self._carriers:
                        self._carriers[name].append(item.nodeid)
                    else:
                        unknown.append(f"{item.nodeid}: {name!r} is not a name of {NAMES.name}")
                if not marker.args:
                    unknown.append(f"{item.nodeid}: conformance marker without a name")
        if unknown:
            raise pytest.UsageError(*unknown)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.record(report.nodeid, report.when or "", report.outcome)

    def record(self, node: str, when: str, outcome: str) -> None:
        """One phase of one test. A test passed when its call did and neither setup nor teardown failed."""
        if outcome == "failed":
            self._outcomes[node] = "failed"
        elif when == "call":
            self._outcomes.setdefault(node, outcome)

    def verdicts(self) -> dict[str, str]:
        """Verdict of every name."""
        return {name: verdict(carriers, self._outcomes) for name, carriers in self._carriers.items()}

    def scores(self) -> dict[str, Score]:
        """Score of every SIG."""
        by_sig: dict[str, list[str]] = defaultdict(list)
        for name, found in self.verdicts().items():
            by_sig[sig_of(name)].append(found)
        return {
            sig: Score(found.count("passed"), found.count("failed"), len(found))
            for sig, found in sorted(by_sig.items())
        }

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """One line per SIG, when the run attempted any name."""
        found = self.verdicts()
        if not any(found.values()):
            return
        terminalreporter.section("conformance by name")
        for sig, score in self.scores().items():
            terminalreporter.write_line(score.line(sig))
        for name, each in found.items():
            if each == "failed":
                terminalreporter.write_line(f"failed: {name}")
            elif not each and self._list_missing:
                terminalreporter.write_line(f"not attempted: {name}")


def add_option(parser: pytest.Parser) -> None:
    """The plugin's one option."""
    parser.addoption(OPTION, action="store_true", help="list the conformance names that no test attempted")


def register(config: pytest.Config) -> None:
    """Make the marker known and the plugin part of the run."""
    config.pluginmanager.register(Conformance(upstream_names(), config.getoption(OPTION)), "nanokube-conformance")
