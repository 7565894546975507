"""Reading in threads: in order, no further ahead than asked, errors in their place."""

import threading

import pytest

from llava_aurora.errors import AuroraError
from llava_aurora.read_ahead import read_ahead


def halved(number: int) -> int:
    if number % 2:
        raise AuroraError(f"{number} is odd")
    return number // 2


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_values_come_in_order_and_errors_in_their_place(workers):
    found = list(read_ahead(range(6), halved, workers=workers, ahead=3))
    assert [number for number, _ in found] == list(range(6))
    assert [value for _, value in found[::2]] == [0, 1, 2]
    assert [str(error) for _, error in found[1::2]] == ["1 is odd", "3 is odd", "5 is odd"]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_no_users_fault_is_raised(workers):
    with pytest.raises(ZeroDivisionError):
        list(read_ahead([1, 0], lambda number: 1 // number, workers=workers, ahead=2))


def test_no_more_is_held_than_asked_for():
    asked = []
    lock = threading.Lock()

    def read(number: int) -> int:
        with lock:
            asked.append(number)
        return number

    for number, _ in read_ahead(range(50), read, workers=2, ahead=5):
        assert len(asked) <= number + 5


def test_stopping_early_stops_the_reading():
    before = set(threading.enumerate())
    reading = read_ahead(range(10**9), halved, workers=2, ahead=4)
    assert next(reading) == (0, 0)
    reading.close()
    assert not [thread for thread in set(threading.enumerate()) - before if "ThreadPool" in thread.name]
