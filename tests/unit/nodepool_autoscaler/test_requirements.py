import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodepool_autoscaler.requirements import OPERATORS, Requirement, merged
from tests.unit.nodepool_autoscaler.scene import demand

VALUES = ("1", "2", "3", "9", "a", "b")


@pytest.mark.parametrize(
    ("operator", "values", "allowed", "refused"),
    [
        pytest.param("In", ("a", "b"), ("a", "b"), ("c", None), id="in"),
        pytest.param("NotIn", ("a",), ("b", None), ("a",), id="not-in"),
        pytest.param("Exists", (), ("a", "1"), (None,), id="exists"),
        pytest.param("DoesNotExist", (), (None,), ("a",), id="does-not-exist"),
        pytest.param("Gt", ("2",), ("3", "10"), ("2", "1", "a", None), id="gt"),
        pytest.param("Lt", ("2",), ("1", "0"), ("2", "3", "a", None), id="lt"),
    ],
)
def test_operators(
    operator: str, values: tuple[str, ...], allowed: tuple[str | None, ...], refused: tuple[str | None, ...]
) -> None:
    made = demand("key", operator, *values)
    assert all(made.allows(each) for each in allowed) and not any(made.allows(each) for each in refused)


@pytest.mark.parametrize(("operator", "values"), [("Gt", ()), ("Gt", ("1", "2")), ("Lt", ("many",)), ("Like", ("a",))])
def test_what_is_no_requirement(operator: str, values: tuple[str, ...]) -> None:
    with pytest.raises(ValueError):
        demand("key", operator, *values)


def requirements() -> st.SearchStrategy[Requirement]:
    def made(operator: str, values: frozenset[str], bound: str) -> Requirement:
        return Requirement.of("key", operator, {bound} if operator in ("Gt", "Lt") else values)

    return st.builds(
        made, st.sampled_from(OPERATORS), st.frozensets(st.sampled_from(VALUES)), st.sampled_from(("0", "1", "2", "9"))
    )


@given(requirements(), requirements(), requirements())
def test_an_intersection_allows_what_all_allow(one: Requirement, two: Requirement, three: Requirement) -> None:
    both = one.intersect(two)
    for value in VALUES:
        assert both.allows(value) == (one.allows(value) and two.allows(value))
        assert merged([one, two, three])["key"].allows(value) == all(each.allows(value) for each in (one, two, three))


@given(requirements(), requirements())
def test_what_is_told_is_what_is_meant(one: Requirement, two: Requirement) -> None:
    both = one.intersect(two)
    again = merged(Requirement.of(each["key"], each["operator"], each.get("values", ())) for each in both.told())["key"]
    assert all(again.allows(value) == both.allows(value) for value in VALUES)


def test_old_names_of_labels_mean_the_new_ones() -> None:
    assert demand("beta.kubernetes.io/arch", "In", "amd64").key == "kubernetes.io/arch"


def test_the_larger_flexibility_is_kept() -> None:
    assert demand("a", "Exists", least=2).intersect(demand("a", "In", "x", "y", "z", least=3)).min_values == 3
