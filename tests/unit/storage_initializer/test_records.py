"""Records behave like the dataclasses they replace."""

import pytest

from storage_initializer.records import Record


class Point(Record):
    x: int
    y: int = 2


class Counter(Record, frozen=False):
    count: int = 0


def test_values_come_by_position_by_name_or_by_default() -> None:
    assert (Point(1).x, Point(1).y) == (1, 2)
    assert Point(1, 3) == Point(y=3, x=1)
    assert repr(Point(1)) == "Point(x=1, y=2)"


@pytest.mark.parametrize("values", [{}, {"y": 1}, {"x": 1, "z": 2}, {"z": 2}])
def test_missing_and_unknown_fields_are_refused(values: dict[str, int]) -> None:
    with pytest.raises((TypeError, AttributeError)):
        Point(**values)


def test_too_many_values_are_refused() -> None:
    with pytest.raises(TypeError):
        Point(1, 2, 3)  # type: ignore[call-arg]


def test_they_are_immutable_unless_said_otherwise() -> None:
    with pytest.raises(AttributeError):
        Point(1).x = 2  # type: ignore[misc]
    counter = Counter()
    counter.count += 1
    assert counter.count == 1
    assert Counter().count == 0


def test_equality_and_hash_are_of_type_and_values() -> None:
    assert Point(1) == Point(1, 2)
    assert Point(1) != Point(2)
    assert hash(Point(1)) == hash(Point(1, 2))
    assert Point(0) != Counter(0)
    assert {Point(1): "a"}[Point(1)] == "a"


def test_but_changes_a_copy() -> None:
    first = Point(1)
    assert first.but(x=5) == Point(5)
    assert first == Point(1)


def test_there_is_no_dictionary_per_record() -> None:
    assert not hasattr(Point(1), "__dict__")
