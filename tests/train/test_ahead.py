import threading
import time

import pytest

from scgpt.train._ahead import ahead


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "scgpt-loader"]


@pytest.mark.parametrize("most", [0, 1, 3, 50])
def test_all_items_come_in_order(most):
    assert list(ahead(iter(range(20)), most)) == list(range(20))
    assert threads() == []


def test_no_more_is_prepared_than_asked_for():
    made = []

    def items():
        for i in range(20):
            made.append(i)
            yield i

    running = ahead(items(), 3)
    assert next(running) == 0
    time.sleep(0.3)
    assert len(made) <= 1 + 3 + 1  # handed out, waiting, in the making
    running.close()
    assert threads() == []


def test_an_error_comes_where_its_item_would_have_come():
    def items():
        yield 1
        raise ValueError("no more")

    running = ahead(items(), 5)
    assert next(running) == 1
    with pytest.raises(ValueError, match="no more"):
        next(running)
    assert threads() == []


def test_work_is_done_while_the_one_who_asks_is_busy():
    def items():
        for i in range(3):
            time.sleep(0.2)
            yield i

    start = time.perf_counter()
    for _ in ahead(items(), 2):
        time.sleep(0.2)
    assert time.perf_counter() - start < 1.1  # one after the other it would be 1.2
