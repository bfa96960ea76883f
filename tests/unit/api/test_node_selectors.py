"""Terms of node selectors for one node, alone and beside the scheduler's, which judges all nodes at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models import core_v1, meta_v1
from api.node_selectors import admits, integer, term_matches
from scheduler.framework.node_selector import Term

Requirement = core_v1.NodeSelectorRequirement
VALUES = st.sampled_from(["a", "b", "10", "9", "1_0", "+5", "-3", "", "9223372036854775808", "0" * 40 + "5"])
OPERATORS = st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Near"])


def requirements(keys: st.SearchStrategy[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    made = st.builds(Requirement, key=keys, operator=OPERATORS, values=st.none() | st.lists(values, max_size=2))
    return st.none() | st.lists(made, max_size=3)


TERMS = st.builds(
    core_v1.NodeSelectorTerm,
    matchExpressions=requirements(st.sampled_from(["zone", "size"]), VALUES),
    matchFields=requirements(st.sampled_from(["metadata.name", "spec.x"]), st.sampled_from(["n1", "n2"])),
)
LABELS = st.dictionaries(st.sampled_from(["zone", "size"]), VALUES)


@given(TERMS, LABELS)
def test_one_node_is_judged_as_the_scheduler_judges_it(term: core_v1.NodeSelectorTerm, labels: dict[str, str]) -> None:
    node = core_v1.Node(metadata=meta_v1.ObjectMeta(name="n1", labels=labels))
    assert term_matches(term, labels, "n1") is Term.compile(term).matches(node)


@pytest.mark.parametrize(
    ("text", "number"),
    [("10", 10), ("-3", -3), ("+5", 5), ("1_0", None), (" 1", None), ("", None), (None, None), ("٣", None),
     ("9223372036854775807", 2**63 - 1), ("9223372036854775808", None), ("9" * 5000, None), ("0" * 40 + "5", 5)],
)  # fmt: skip
def test_numbers_are_read_as_go_reads_them(text: str | None, number: int | None) -> None:
    assert integer(text) == number


@pytest.mark.parametrize(
    ("selector", "terms", "admitted"),
    [
        pytest.param(None, None, True, id="anything goes"),
        pytest.param({"zone": "a"}, None, True, id="selector"),
        pytest.param({"zone": "b"}, None, False, id="other selector"),
        pytest.param(None, [], False, id="no term"),
        pytest.param({"zone": "a"}, [("zone", "In", ["b"]), ("size", "Gt", ["3"])], True, id="one term of two"),
        pytest.param({"zone": "b"}, [("size", "Gt", ["3"])], False, id="both are wanted"),
    ],
)
def test_a_pod_wants_its_selector_and_one_of_its_terms(
    selector: dict[str, str] | None, terms: list[tuple[str, str, list[str]]] | None, admitted: bool
) -> None:
    spec = core_v1.PodSpec(containers=[], nodeSelector=selector)
    if terms is not None:
        made = [core_v1.NodeSelectorTerm(matchExpressions=[Requirement(*each)]) for each in terms]
        required = core_v1.NodeSelector(nodeSelectorTerms=made)
        node_affinity = core_v1.NodeAffinity(requiredDuringSchedulingIgnoredDuringExecution=required)
        spec.affinity = core_v1.Affinity(nodeAffinity=node_affinity)
    assert admits(spec, {"zone": "a", "size": "4"}, "n1") is admitted
