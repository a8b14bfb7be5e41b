"""Work in threads whose results come in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from hwr.errors import HwrError

Item = TypeVar("Item")
Found = TypeVar("Found")


def in_threads(
    function: Callable[[Item], Found], items: Iterable[Item], ahead: int | None = None, threads: int | None = None
) -> Iterator[Found | HwrError]:
    """Calls a function for each item, a few ahead of the caller, so that memory stays bounded however many there are.

    Args:
        function: Work that leaves Python, such as decoding images.
        items: What to call it for; taken one by one, in the caller's thread.
        ahead: How many items are begun beyond the one whose result is handed out; None means two a thread.
        threads: How many; None means one a core, at most eight.

    Yields:
        For each item, in order, what the function returned, or the HwrError that it raised.
    """

    def one(item: Item) -> Found | HwrError:
        try:
            return function(item)
        except HwrError as error:
            return error

    threads = min(8, os.cpu_count() or 1) if threads is None else threads
    ahead = 2 * threads if ahead is None else ahead
    pending: deque[Future[Found | HwrError]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            pending.append(pool.submit(one, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
