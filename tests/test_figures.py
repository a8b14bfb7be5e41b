"""What the figures show: the right images, in the right order, the right way round, in every odd case."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawings import drawn, texts
from matplotlib.figure import Figure

from hwr import figures

TIMES = "\N{MULTIPLICATION SIGN}"
DIGITS = [str(digit) for digit in range(10)]
CHINESE = [chr(0x4E00 + i) for i in range(3755)]


def marked(count: int, side: int = 8) -> figures.Images:
    """Return images that each hold their own number in every pixel, so that one can be told from another."""
    return np.repeat(np.arange(count, dtype=np.uint8), side * side).reshape(count, side, side)


def numbers(figure: Figure) -> list[int]:
    """Return the numbers of the images of marked() in a figure, in the order they are drawn."""
    return [255 - int(np.asarray(image.get_array())[0, 0]) for image in figure.axes[0].images]


def panels(figure: Figure) -> list[str]:
    """Return the titles of the panels of curves."""
    return [axes.get_title(loc="left") for axes in figure.axes[1:]]


def points(figure: Figure, name: str) -> dict[float, float]:
    """Return the points of the line of this name."""
    line = next(line for axes in figure.axes for line in axes.lines if line.get_label() == name)
    return dict(zip(np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist(), strict=True))


def test_ink_is_dark_on_white_paper() -> None:
    image = np.zeros((1, 8, 8), dtype=np.uint8)
    image[0, :, 4:] = 255  # ink on the right half
    figure = figures.samples(image, ["a"])
    pixels = drawn(figure)
    left, right, bottom, top = figure.axes[0].images[0].get_extent()
    row = pixels[round((top + bottom) / 2), :, 0]
    assert (row[round(left) + 3 : round((left + right) / 2) - 1] == 255).all()
    assert (row[round((left + right) / 2) + 1 : round(right) - 2] == 0).all()
    assert pixels.shape[1] == 1000


def test_every_sample_has_its_label_below_it() -> None:
    figure = figures.samples(marked(30), [f"class {i}" for i in range(30)])
    assert numbers(figure) == list(range(30))
    for image, text in zip(figure.axes[0].images, figure.axes[0].texts, strict=True):
        left, right, bottom, _ = image.get_extent()
        assert text.get_text() == f"class {255 - int(np.asarray(image.get_array())[0, 0])}"
        assert left < text.get_position()[0] < right
        assert bottom < text.get_position()[1] < bottom + 30


@pytest.mark.parametrize("labels", [["W" * 40] * 12, [*CHINESE[:12]], ["a\nb"] * 12, [" "] * 12])
def test_captions_do_not_overlap_nor_leave_the_page(labels: list[str]) -> None:
    figure = figures.predictions(marked(12), labels, labels[::-1], np.full(12, 0.5))
    drawn(figure)
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 for box in boxes)


def test_predictions_say_what_was_read_and_colour_it() -> None:
    figure = figures.predictions(marked(3), ["7", "4", "1"], ["7", "9", "1"], np.array([0.97, 0.64, 0.999]))
    captions = figure.axes[0].texts
    assert [text.get_text() for text in captions] == ["7 97%", "9 64% (true 4)", "1 >99%"]
    assert [text.get_color() for text in captions] == [figures.GREEN, figures.RED, figures.GREEN]
    assert "2 of these 3 images" in texts(figure)[0]


def test_worst_errors_are_the_errors_with_the_most_confident_first() -> None:
    confidence = np.array([0.99, 0.2, 0.9, np.nan, 0.5, 0.95])
    figure = figures.worst_errors(marked(6), list("aaaaaa"), list("abbbba"), confidence)
    assert numbers(figure) == [2, 4, 1, 3]
    assert texts(figure)[1:3] == ["b 90% (true a)", "b 50% (true a)"]
    drawn(figure)


def test_worst_errors_stop_at_forty() -> None:
    figure = figures.worst_errors(marked(60), ["a"] * 60, ["b"] * 60, np.linspace(0, 1, 60))
    assert numbers(figure) == list(range(59, 19, -1))
    assert texts(figure)[0] == "40 of 60 errors, the most confident first"


def test_confused_pairs_are_counted_and_ordered() -> None:
    truth = np.array([4, 4, 4, 1, 1, 9, 0, 0])
    predicted = np.array([9, 9, 9, 7, 7, 4, 0, 0])
    figure = figures.confused_pairs(marked(8), truth, predicted, DIGITS)
    assert texts(figure)[1:] == ["4 → 9", f"3{TIMES}", "1 → 7", f"2{TIMES}", "9 → 4", f"1{TIMES}"]
    assert numbers(figure) == [0, 1, 2, 3, 4, 5]
    assert "6 of 6 errors" in texts(figure)[0]
    top = figures.confused_pairs(marked(8), truth, predicted, DIGITS, top=1)
    assert numbers(top) == [0, 1, 2]
    assert "3 of 6 errors" in texts(top)[0]


@pytest.mark.parametrize("side", [8, 28, 64, 200])
def test_confused_pairs_keep_to_the_page(side: int) -> None:
    truth, predicted = np.zeros(30, dtype=int), np.ones(30, dtype=int)
    figure = figures.confused_pairs(marked(30, side), truth, predicted, ["longer name than most", "W" * 30])
    edges = [image.get_extent() for image in figure.axes[0].images]
    assert 1 <= len(edges) <= 8
    assert all(right <= 1000 for _, right, _, _ in edges)
    few = figures.confused_pairs(marked(30, 8), truth, predicted, DIGITS)
    assert numbers(few) == list(range(8))


def test_no_errors_is_said() -> None:
    right = ["a"] * 5
    assert "No errors" in texts(figures.worst_errors(marked(5), right, right, np.ones(5)))[0]
    assert "No errors" in texts(figures.confused_pairs(marked(5), np.zeros(5, int), np.zeros(5, int), ["a"]))[0]
    assert "No images" in texts(figures.samples(marked(0), []))[0]


def test_confusion_is_in_percent_of_the_true_class_without_the_diagonal() -> None:
    figure = figures.confusion(np.array([[8, 2, 0], [0, 40, 0], [1, 0, 0]]), ["a", "b", "c"])
    axes = figure.axes[1]
    share = np.asarray(axes.images[0].get_array().filled(0))
    np.testing.assert_allclose(share - np.diag(np.diag(share)), [[0, 20, 0], [0, 0, 0], [100, 0, 0]], rtol=1e-6)
    assert (np.diag(share) < 0).all()  # grey: below the scale
    assert {(*text.get_position(), text.get_text()) for text in axes.texts} == {
        (0, 0, "8"), (1, 0, "2"), (1, 1, "40"), (0, 2, "1")
    }  # fmt: skip
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b", "c"]
    assert "94.12% of 51" in texts(figure)[0]


@pytest.mark.parametrize("count", [1, 2, 62, 100, 3755])
def test_confusion_of_many_classes_is_quick_and_shows_a_single_error(count: int) -> None:
    matrix = np.diag(np.full(count, 60))
    start = time.process_time()
    clean = drawn(figures.confusion(matrix, CHINESE[:count]))
    assert time.process_time() - start < 2
    matrix[count - 1 - count // 4, count // 4] += count > 1
    figure = figures.confusion(matrix, CHINESE[:count])
    lower_left = np.s_[clean.shape[0] // 2 : -100, 150:450]
    before, after = (pixels[lower_left].astype(int) for pixels in (clean, drawn(figure)))
    assert ((before[..., 0] - before[..., 2]) < 20).all()  # nothing red
    assert ((after[..., 0] - after[..., 2]) > 40).any() == (count > 1)
    assert len(figure.axes[1].get_yticklabels()) == {1: 1, 2: 2, 62: 62, 100: 50, 3755: 0}[count]
    assert bool(figure.axes[1].texts) == (count <= 15)


def test_confusion_leaves_its_input_alone_and_takes_none_at_all() -> None:
    matrix = np.array([[3, 1], [0, 4]], dtype=np.int32)
    figures.confusion(matrix, ["a", "b"])
    assert matrix.tolist() == [[3, 1], [0, 4]]
    drawn(figures.confusion(np.zeros((3, 3), dtype=int), ["$a", "_", "\\"]))


def test_curves_draw_the_error_and_mark_the_best_epoch() -> None:
    rows = [
        {"epoch": 0, "train/loss": 2.0, "val/loss": 1.5, "val/accuracy": 0.9, "lr-AdamW": 1e-3},
        {"epoch": 1, "train/loss": 1.0, "val/loss": float("nan"), "val/accuracy": 0.99, "lr-AdamW": 5e-4},
        {"epoch": 2, "train/loss": 0.5, "val/loss": 0.6, "val/accuracy": 0.98},
    ]
    figure = figures.curves(rows)
    drawn(figure)
    assert panels(figure) == ["Loss", "Error, %", "Learning rate"]
    assert points(figure, "val/loss") == {0: 1.5, 2: 0.6}
    assert points(figure, "val/error") == pytest.approx({0: 10, 1: 1, 2: 2})
    assert texts(figure)[0] == "Best at epoch 1: validation error 1%"
    assert set(points(figure, "best epoch")) == {1}


def test_curves_put_no_error_at_a_zero_below_the_others() -> None:
    figure = figures.curves([{"epoch": i, "train/accuracy": y} for i, y in enumerate([0.9, 1.0, 0.99, 1 - 6e-8])])
    drawn(figure)
    heights = points(figure, "train/error")
    assert heights[1] == heights[3]
    assert 0 < heights[1] < heights[2]
    axes = figure.axes[1]
    assert axes.get_yticklabels()[0].get_text() == "0"
    assert axes.get_yticks()[0] == heights[1]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"epoch": 0, "train/loss": 1.0, "val/accuracy": 0.5, "lr-SGD": 0.1}], ["Loss", "Error, %", "Learning rate"]),
        ([{"epoch": 0, "val/accuracy": 1.0}], ["Error, %"]),
        ([{"val/loss": -1.0}, {"val/loss": -2.0}], ["Loss"]),
        ([{"epoch": 3, "train/loss": float("nan"), "lr-SGD": 0.0}], ["Learning rate"]),
        ([{"epoch": i, "train/loss": 10.0 ** (3 - i)} for i in range(9)], ["Loss"]),
        ([{"epoch": 0, "train/loss": float("inf")}], []),
        ([], []),
    ],
)
def test_curves_leave_out_what_was_not_logged(rows: list[dict[str, float]], expected: list[str]) -> None:
    figure = figures.curves(rows)
    drawn(figure)
    assert panels(figure) == expected
    if rows and "val/loss" in rows[0]:
        assert points(figure, "val/loss") == {0: -1, 1: -2}


def test_reliability_bins_and_calibration_error() -> None:
    confidence = np.array([0.95, 0.95, 0.55, 0.55, 1.0, 0.0, np.nan], dtype=np.float32)
    correct = np.array([True, False, True, False, True, False, True])
    figure = figures.reliability(confidence, correct, bins=10)
    drawn(figure)
    patches: list[Any] = list(figure.axes[1].patches)
    bars = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in patches}
    assert bars == pytest.approx({5: 0, 55: 50, 95: 200 / 3})  # the confidence 1.0 is in the last bin
    assert texts(figure)[0].startswith("Expected calibration error 16.7%")  # (2 x |55 - 50| + 3 x |96.67 - 66.67|) / 6


@pytest.mark.parametrize("count", [0, 1])
def test_reliability_of_next_to_nothing(count: int) -> None:
    drawn(figures.reliability(np.full(count, 0.9), np.ones(count, dtype=bool)))


def test_any_class_name_can_be_drawn() -> None:
    names = ["a", "一", r"$\bad$", "$", "\\", "_", "", " ", "\n", "\u200b", "\ud800", "é", "🙂", "نص", "W" * 99]
    count = len(names)
    drawn(figures.samples(marked(count), names))
    drawn(figures.predictions(marked(count), names, names[::-1], np.full(count, 0.5)))
    drawn(figures.confused_pairs(marked(count), np.arange(count), np.arange(count)[::-1], names))
    drawn(figures.confusion(np.ones((count, count), dtype=int), names))


def test_names_the_font_lacks_are_given_by_code_point() -> None:
    assert texts(figures.samples(marked(4), ["一", "$x$", "\u200b", " "]))[1:] == ["U+4E00", "$x$", "U+200B", "␣"]


def test_save_replaces_a_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    figures.save(figures.samples(marked(1), ["a"]), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]
    assert int.from_bytes(path.read_bytes()[16:20], "big") == 1000


def test_pyplot_and_torch_stay_out() -> None:
    source = Path(figures.__file__).as_posix()
    code = (
        f"import runpy, sys; runpy.run_path({source!r}); "
        "sys.exit(any(m in sys.modules for m in ('matplotlib.pyplot', 'torch', 'hydra')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
