"""Autoscalers of the same pods are found, whatever their selectors look like."""

from hypothesis import given
from hypothesis import strategies as st

from controller_manager.horizontal.selectors import Selectors
from machinery.meta import ObjectKey
from machinery.selectors import LabelSelector

TEXTS = st.sampled_from(["a=1", "a=2", "b=1", "a=1,b=1", "a in (1,2)", "a!=1", "b", "a in (1,2),b=1"])
LABELS = st.dictionaries(st.sampled_from("ab"), st.sampled_from("12"))
KEYS = st.builds(ObjectKey, st.sampled_from(["n", "m"]), st.sampled_from("pqrst"))


@given(st.lists(st.tuples(KEYS, st.one_of(st.none(), TEXTS)), max_size=12), KEYS, st.lists(LABELS, max_size=4))
def test_rivals_are_those_that_match(
    steps: list[tuple[ObjectKey, str | None]], key: ObjectKey, pods: list[dict[str, str]]
) -> None:
    made, expected = Selectors(), dict[ObjectKey, LabelSelector]()
    for each, text in steps:
        if text is None:
            made.forget(each)
            expected.pop(each, None)
        else:
            expected[each] = LabelSelector.parse(text)
            made.put(each, expected[each])
    others = sorted(
        other
        for other, selector in expected.items()
        if other != key and other.namespace == key.namespace and any(selector.matches(labels) for labels in pods)
    )
    assert made.rivals(key, pods) == others
