"""Work that is done before its result is asked for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any


def ahead[T](items: Iterator[T], most: int) -> Iterator[T]:
    """Yield what an iterator yields, up to ``most`` items of which a thread prepares in advance; 0 for no thread.

    An error in the thread is raised where its item would have come. The thread ends with the iteration, also one that is
    given up.
    """
    if most == 0:
        yield from items
        return
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(most)
    given_up = threading.Event()

    def put(kind: str, item: Any) -> bool:
        while not given_up.is_set():
            try:
                ready.put((kind, item), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as error:  # noqa: BLE001 - raised in the thread that asks
            put("error", error)

    thread = threading.Thread(target=work, name="scgpt-loader", daemon=True)
    thread.start()
    try:
        while True:
            kind, item = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise item
            yield item
    finally:
        given_up.set()
        thread.join()
