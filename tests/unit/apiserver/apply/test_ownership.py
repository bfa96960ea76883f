from __future__ import annotations

from typing import Any

import pytest

from apiserver.apply.ownership import (
    ANCIENT,
    MOST_UPDATERS,
    capped,
    make_entry,
    plan_create,
    plan_given,
    plan_update,
    same_but_time,
)
from tests.unit.apiserver.apply.objects import CONFIG_MAPS, DEPLOYMENT_STATUS, LATER, NOW, config_map, deployment


def test_an_update_takes_fields_from_their_owner() -> None:
    old, new = config_map({"a": "1", "b": "2"}), config_map({"a": "9", "b": "2"})
    managed = plan_update(CONFIG_MAPS, old, new, plan_create(CONFIG_MAPS, old, "x", NOW), "y", LATER)
    assert managed == [
        make_entry("x", "Update", "v1", NOW, {"f:data": {".": {}, "f:b": {}}}, ""),
        make_entry("y", "Update", "v1", LATER, {"f:data": {"f:a": {}}}, ""),
    ]


def test_an_owner_of_nothing_is_forgotten() -> None:
    old, new = config_map({"a": "1"}), config_map()
    assert plan_update(CONFIG_MAPS, old, new, plan_create(CONFIG_MAPS, old, "x", NOW), "y", LATER) == []


def test_a_change_of_nothing_keeps_the_list() -> None:
    obj = config_map({"a": "1"})
    managed = plan_create(CONFIG_MAPS, obj, "x", NOW)
    assert plan_update(CONFIG_MAPS, obj, config_map({"a": "1"}), managed, "y", LATER) is managed


def test_a_mere_removal_keeps_the_time() -> None:
    old, new = config_map({"a": "1", "b": "2"}), config_map({"a": "1"})
    managed = plan_update(CONFIG_MAPS, old, new, plan_create(CONFIG_MAPS, old, "x", NOW), "x", LATER)
    assert managed == [make_entry("x", "Update", "v1", NOW, {"f:data": {".": {}, "f:a": {}}}, "")]


def test_nothing_is_tracked_where_ownership_was_reset() -> None:
    assert plan_update(CONFIG_MAPS, config_map(), config_map({"a": "1"}), [], "x", NOW) == []


def test_a_status_write_owns_no_spec() -> None:
    old = {**deployment(replicas=1), "status": {}}
    new = {**deployment(replicas=2), "status": {"replicas": 3}}
    entry = make_entry("x", "Update", "apps/v1", NOW, {"f:spec": {"f:replicas": {}}}, "")
    managed = plan_update(DEPLOYMENT_STATUS, old, new, [entry], "y", LATER)
    assert managed == [entry, make_entry("y", "Update", "apps/v1", LATER, {"f:status": {"f:replicas": {}}}, "status")]


def test_versions_that_are_gone_own_nothing() -> None:
    entry = make_entry("x", "Update", "v0", NOW, {"f:data": {}}, "")
    assert plan_update(CONFIG_MAPS, config_map({"a": "1"}), config_map({"a": "1"}), [entry], "y", LATER) == []


def test_the_oldest_updaters_are_merged() -> None:
    entries = [
        make_entry(f"m{n:02}", "Update", "v1", f"2026-01-01T00:00:{n:02}Z", {"f:data": {f"f:{n}": {}}}, "")
        for n in range(MOST_UPDATERS + 2)
    ]
    kept = {entry["manager"]: entry for entry in capped(entries)}
    assert len(kept) == MOST_UPDATERS
    assert kept[ANCIENT]["fieldsV1"] == {"f:data": {"f:0": {}, "f:1": {}, "f:2": {}}}
    assert kept[ANCIENT]["time"] == entries[2]["time"]
    once_more = make_entry("new", "Update", "v1", "2026-01-01T00:01:00Z", {"f:data": {"f:x": {}}}, "")
    again = {entry["manager"]: entry for entry in capped([*kept.values(), once_more])}
    assert len(again) == MOST_UPDATERS
    assert again[ANCIENT]["fieldsV1"] == {"f:data": {f"f:{n}": {} for n in range(4)}}


def test_appliers_are_not_merged() -> None:
    entries = [make_entry(f"m{n}", "Apply", "v1", NOW, {"f:data": {}}, "") for n in range(20)]
    assert capped(entries) is entries


LIVE = [make_entry("x", "Update", "v1", NOW, {"f:data": {}}, "")]
OWN = make_entry("y", "Apply", "v1", NOW, {"f:data": {"f:a": {}}}, "")


@pytest.mark.parametrize(
    ("given", "start"),
    [
        pytest.param(None, LIVE, id="nothing"),
        pytest.param([], LIVE, id="empty-list"),
        pytest.param([{}], [], id="reset"),
        pytest.param([OWN], [OWN], id="own"),
        pytest.param([{**OWN, "operation": "Eat"}], LIVE, id="bad-operation"),
        pytest.param([{**OWN, "fieldsV1": {"data": {}}}], LIVE, id="bad-fields"),
        pytest.param([{**OWN, "manager": 1}], LIVE, id="bad-manager"),
        pytest.param("text", LIVE, id="no-list"),
        pytest.param([7], LIVE, id="no-entry"),
    ],
)
def test_what_clients_send_as_entries(given: Any, start: Any) -> None:
    assert plan_given(given, LIVE) == start


def test_only_the_times_differ() -> None:
    assert same_but_time(LIVE, [{**LIVE[0], "time": LATER}])
    assert not same_but_time(LIVE, [{**LIVE[0], "fieldsV1": {}}])
    assert not same_but_time(LIVE, [])
