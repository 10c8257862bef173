"""When Python looks for garbage while models come and go."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from functions import heap


class Cycle:
    """Only the collector can free one."""

    def __init__(self) -> None:
        self.self = self


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_loading_is_not_interrupted_and_what_it_made_is_set_aside() -> None:
    before = gc.get_threshold()
    collections = gc.get_stats()[0]["collections"]
    with heap.loading():
        kept = [[] for _ in range(50_000)]  # type: ignore[var-annotated]
        made = gc.get_stats()[0]["collections"] - collections
    assert made <= 1  # by default it would be seventy
    assert gc.get_freeze_count() > len(kept)
    assert gc.get_threshold() == before


def test_an_unloaded_model_in_a_cycle_is_collected() -> None:
    with heap.loading():
        model = Cycle()
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is not None
    heap.unloading()
    gc.collect()
    assert gone() is None


def test_the_next_loading_does_not_set_aside_what_the_last_unloading_left() -> None:
    with heap.loading():
        model = Cycle()
    gone = weakref.ref(model)
    heap.unloading()
    del model
    with heap.loading():
        pass
    assert gone() is None


def test_a_loading_that_fails_puts_the_thresholds_back() -> None:
    before = gc.get_threshold()
    with pytest.raises(RuntimeError), heap.loading():
        raise RuntimeError
    assert gc.get_threshold() == before


def test_thresholds_of_user_code_stay() -> None:
    with heap.loading():
        gc.set_threshold(1234, 5, 6)
    assert gc.get_threshold() == (1234, 5, 6)
    gc.set_threshold(0)
    with heap.loading():
        assert gc.get_threshold()[0] == 0
