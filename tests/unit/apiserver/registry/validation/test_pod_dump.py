"""The diffs in refusals of pod updates: what lines of the internal structs they show."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from apiserver.registry.validation.pod_dump import ephemeral_diff, spec_diff

Obj = dict[str, Any]
SPEC: Obj = {
    "containers": [{"name": "main", "image": "nginx", "resources": {"limits": {"memory": "1Gi", "cpu": "1"}}}],
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "serviceAccountName": "default",
    "serviceAccount": "default",
    "hostNetwork": True,
    "securityContext": {"runAsUser": 5},
    "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}},
    "volumes": [{"name": "v", "emptyDir": {}}],
}


def changed(**fields: Any) -> Obj:
    return {**copy.deepcopy(SPEC), **fields}


def lines(new: Obj) -> list[str]:
    """The lines that differ."""
    return [line for line in spec_diff(SPEC, new).splitlines() if line[:1] in "+-"]


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        pytest.param(changed(), [], id="nothing"),
        pytest.param(changed(nodeName="n1"), ['- "NodeName": "",', '+ "NodeName": "n1",'], id="a text"),
        pytest.param(changed(priority=5), ['- "Priority": null,', '+ "Priority": 5,'], id="a pointer"),
        pytest.param(
            changed(hostNetwork=False), ['-  "HostNetwork": true,', '+  "HostNetwork": false,'], id="the host"
        ),
        pytest.param(
            changed(securityContext={"runAsUser": 6, "fsGroup": 7}),
            ['-  "RunAsUser": 5,', '+  "RunAsUser": 6,', '-  "FSGroup": null,', '+  "FSGroup": 7,'],
            id="security context",
        ),
        pytest.param(
            changed(
                affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "z"}]}}
            ),
            ['-     "TopologyKey": "zone",', '+     "TopologyKey": "z",'],
            id="affinity",
        ),
        pytest.param(
            changed(volumes=[{"name": "v", "hostPath": {"path": "/x", "type": ""}}]),
            [
                '-   "HostPath": null,',
                '-   "EmptyDir": {',
                '-    "Medium": "",',
                '-    "SizeLimit": null',
                '+   "HostPath": {',
                '+    "Path": "/x",',
                '+    "Type": ""',
                '+   "EmptyDir": null,',
            ],
            id="volumes",
        ),
        pytest.param(
            changed(dnsConfig={"options": [{"name": "ndots"}]}),
            [
                '- "DNSConfig": null,',
                '+ "DNSConfig": {',
                '+  "Nameservers": null,',
                '+  "Searches": null,',
                '+  "Options": [',
                "+   {",
                '+    "Name": "ndots",',
                '+    "Value": null',
                "+   }",
                "+  ]",
                "+ },",
            ],
            id="structs show all members",
        ),
    ],
)
def test_a_change_is_shown_in_upstreams_internal_form(new: Obj, expected: list[str]) -> None:
    assert sorted(lines(new)) == sorted(expected)


def test_hunks_count_lines_and_show_three_around() -> None:
    assert spec_diff({"containers": []}, {"containers": [], "nodeName": "n"}).startswith("@@ -10,7 +10,7 @@\n")


def test_containers_show_quantities_in_order() -> None:
    more = copy.deepcopy(SPEC)
    more["containers"][0]["resources"]["limits"]["example.com/a"] = "2"
    text = spec_diff(SPEC, more)
    limits = [
        '     "Limits": {',
        '      "cpu": "1",',
        '+     "example.com/a": "2",',
        '      "memory": "1Gi"',
        "     },",
    ]
    assert text.splitlines()[2:7] == limits


def test_an_ephemeral_container() -> None:
    diff = ephemeral_diff({"name": "d", "image": "a"}, {"name": "d", "image": "b"})
    assert diff.startswith(
        '@@ -1,6 +1,6 @@\n {\n  "Name": "d",\n- "Image": "a",\n+ "Image": "b",\n  "Command": null,\n'
    )
