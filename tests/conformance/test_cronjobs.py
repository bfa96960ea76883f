"""sig-apps: the CronJob API; schedules are tried with the virtual clock in `tests/integration/controller_manager`."""

from __future__ import annotations

import pytest

from tests.conformance.objects import container, template
from tests.harness.api import Api, Obj, until


def cronjob(name: str) -> Obj:
    pod = template({"app": name}, container(["true"]), restartPolicy="OnFailure")
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name, "labels": {"special-label": name}},
        "spec": {"schedule": "* */1 * * ?", "jobTemplate": {"spec": {"template": pod}}, "suspend": True},
    }


@pytest.mark.conformance("[sig-apps] CronJob should support CronJob API operations [Conformance]")
def test_api_operations(api: Api, namespace: str) -> None:
    groups = {each["name"]: each for each in api.call("GET", "/apis")["groups"]}
    assert "batch/v1" in [each["groupVersion"] for each in groups["batch"]["versions"]]
    resources = {each["name"]: each for each in api.call("GET", "/apis/batch/v1")["resources"]}
    assert {"cronjobs", "cronjobs/status"} <= set(resources)

    jobs, everywhere = api.of("batch/v1", "cronjobs", namespace), api.of("batch/v1", "cronjobs")
    version = jobs.page()["metadata"]["resourceVersion"]
    label = f"special-label={namespace}"
    with jobs.watch(resourceVersion=version, labelSelector=label) as events:
        for name in ("one", "two", "three"):
            made = cronjob(name)
            made["metadata"]["labels"] = {"special-label": namespace}
            jobs.create(made)
            assert until(events, "ADDED")["metadata"]["name"] == name
        assert jobs.get("one")["spec"]["schedule"] == "* */1 * * ?"
        assert sorted(everywhere.names(labelSelector=label)) == ["one", "three", "two"]

        patched = jobs.patch("one", {"metadata": {"annotations": {"patched": "true"}}})
        assert patched["metadata"]["annotations"]["patched"] == "true"
        jobs.modify("one", lambda obj: obj["metadata"]["annotations"].update(updated="true"))
        until(events, "MODIFIED", lambda obj: obj["metadata"]["annotations"].get("updated") == "true")

        when = jobs.get("one")["metadata"]["creationTimestamp"]
        change = {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"lastScheduleTime": when}}
        told = jobs.patch("one", change, "merge", "status")
        assert told["status"]["lastScheduleTime"] == when
        assert told["metadata"]["annotations"]["patchedstatus"] == "true"
        later = "2030-01-01T00:00:00Z"
        jobs.modify("one", lambda obj: obj["status"].update(lastScheduleTime=later), "status")
        assert jobs.get("one", "status")["status"]["lastScheduleTime"] == later

        jobs.delete("one")
        assert until(events, "DELETED")["metadata"]["name"] == "one"
        jobs.delete_all(labelSelector=label)
        assert {until(events, "DELETED")["metadata"]["name"] for _ in range(2)} == {"two", "three"}
    assert everywhere.names(labelSelector=label) == []
