"""Threads: results in order, errors among them, a bounded lead, nothing left running."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwr.errors import HwrError
from hwr.images import read_grey
from hwr.threads import in_threads


@pytest.mark.parametrize("ahead", [0, 1, 30, None])
def test_images_come_in_order_and_go_on_after_a_bad_file(tmp_path, ahead):
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for i, path in enumerate(paths):
        Image.new("L", (3, 2), i).save(path)
    paths[5].write_text("broken")
    results = list(in_threads(read_grey, paths, ahead))
    assert isinstance(results[5], HwrError)
    assert [int(r[0, 0]) for r in results if isinstance(r, np.ndarray)] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]


def test_the_last_may_be_done_first():
    assert list(in_threads(lambda i: time.sleep(0.01 * (5 - i)) or i, range(6))) == list(range(6))


def test_only_a_few_are_begun_ahead():
    taken: list[int] = []
    results = in_threads(str, (taken.append(i) or i for i in range(10_000)), ahead=4)
    assert [next(results) for _ in range(10)] == [str(i) for i in range(10)]
    assert len(taken) == 14
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


def test_another_error_is_raised_where_its_result_is_due():
    results = in_threads(lambda i: 1 // i, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_nothing_to_do():
    assert list(in_threads(Path, [])) == []
