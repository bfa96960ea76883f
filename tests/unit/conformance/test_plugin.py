"""The conformance score: what counts as passed, and which names are refused."""

from __future__ import annotations

import textwrap

import pytest

from tests.conformance.plugin import Conformance, Score, sig_of, upstream_names, verdict

pytest_plugins = ["pytester"]

JOB = "[sig-apps] Job should delete a job [Conformance]"
TABLE = "[sig-api-machinery] server version should find the server version [Conformance]"


def test_names_are_upstreams() -> None:
    names = upstream_names()
    assert len(names) == len(set(names)) == 446
    assert JOB in names and all(name.endswith("[Conformance]") for name in names)


def test_sig_of_a_name() -> None:
    assert sig_of(JOB) == "sig-apps"


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        pytest.param({"a": "passed", "b": "passed"}, "passed", id="all"),
        pytest.param({"a": "passed", "b": "failed"}, "failed", id="one failed"),
        pytest.param({"a": "passed", "b": "skipped"}, "", id="one skipped"),
        pytest.param({"a": "passed"}, "", id="one deselected"),
        pytest.param({"b": "failed"}, "failed", id="failed, the other deselected"),
        pytest.param({}, "", id="none"),
    ],
)
def test_verdict(outcomes: dict[str, str], expected: str) -> None:
    assert verdict(["a", "b"], outcomes) == expected


def test_a_name_without_tests_is_not_attempted() -> None:
    assert verdict([], {}) == ""


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        pytest.param([("setup", "passed"), ("call", "passed"), ("teardown", "passed")], Score(1, 0, 1), id="passed"),
        pytest.param([("setup", "passed"), ("call", "passed"), ("teardown", "failed")], Score(0, 1, 1), id="teardown"),
        pytest.param([("setup", "failed"), ("teardown", "passed")], Score(0, 1, 1), id="setup"),
        pytest.param([("setup", "skipped"), ("teardown", "passed")], Score(0, 0, 1), id="skipped"),
    ],
)
def test_phases_of_a_test(phases: list[tuple[str, str]], expected: Score) -> None:
    plugin = Conformance([JOB])
    plugin._carriers[JOB].append("t")
    for when, outcome in phases:
        plugin.record("t", when, outcome)
    assert plugin.scores() == {"sig-apps": expected}


CONFTEST = """
from tests.conformance import plugin

def pytest_addoption(parser):
    plugin.add_option(parser)

def pytest_configure(config):
    config.addinivalue_line("markers", "conformance(name, ...): names")
    plugin.register(config)
"""


def _run(pytester: pytest.Pytester, tests: str, *arguments: str) -> pytest.RunResult:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile("import pytest\n" + textwrap.dedent(tests))
    return pytester.runpytest_inprocess("-p", "no:asyncio", *arguments)


def test_run_prints_the_score_of_every_sig(pytester: pytest.Pytester) -> None:
    result = _run(
        pytester,
        f"""
        @pytest.mark.conformance("{JOB}")
        @pytest.mark.parametrize("value", [1, 0])
        def test_job(value):
            assert value

        @pytest.mark.conformance("{TABLE}")
        def test_table():
            pass
        """,
    )
    result.stdout.fnmatch_lines(
        [
            "conformance sig-api-machinery: passed 1 / failed 0 / not attempted 98 of 99",
            "conformance sig-apps: passed 0 / failed 1 / not attempted 59 of 60",
        ]
    )
    assert f"failed: {JOB}" in result.stdout.lines


def test_run_refuses_unknown_names(pytester: pytest.Pytester) -> None:
    result = _run(
        pytester,
        """
        @pytest.mark.conformance("[sig-apps] Job should do as I say [Conformance]")
        def test_job():
            pass
        """,
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_job: *Job should do as I say*is not a name of names.txt"])


def test_deselected_tests_keep_a_name_from_passing(pytester: pytest.Pytester) -> None:
    result = _run(
        pytester,
        f"""
        @pytest.mark.conformance("{JOB}", "{TABLE}")
        @pytest.mark.parametrize("value", ["one", "two"])
        def test_job(value):
            pass

        @pytest.mark.conformance("{TABLE}")
        def test_table():
            pass

        @pytest.mark.conformance("[sig-apps] Job should manage the lifecycle of a job [Conformance]")
        def test_one_more():
            pass
        """,
        "-k",
        "one",
        "--conformance-missing",
    )
    result.stdout.fnmatch_lines(
        [
            "conformance sig-apps: passed 1 / failed 0 / not attempted 59 of 60",
            f"not attempted: {JOB.replace('[', '[[]')}",
        ]
    )
