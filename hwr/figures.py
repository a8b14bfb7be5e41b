"""Figures of what a model sees, gets right and gets wrong: arrays in, a matplotlib ``Figure`` out.

Nothing here touches pyplot, so there is no global state, no window and nothing to close. Images are uint8 (N, H, W)
with light ink on black, drawn as dark ink on white paper. Lengths are in pixels of a page 1000 pixels wide.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil, inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from hwr.files import write_bytes

Images = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]
DPI, WIDTH, MARGIN, HEADER = 120, 1000, 24, 68  # dots per inch; the page, its margin, the room for its title
INK, GREY, LINE = "#1f2933", "#6b7683", "#e4e8ec"
BLUE, ORANGE, GREEN, RED = "#2f6db5", "#d9822b", "#2e7d4f", "#c0392b"
ERRORS = LinearSegmentedColormap.from_list("errors", ["#fcdccb", "#ef8a62", "#c0392b", "#5b0f1a"])
LEGEND: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.1, "borderpad": 0.2}
FONT = get_font(findfont(FontProperties()))


def samples(images: Images, labels: Sequence[str]) -> Figure:
    """Draw training samples (N, H, W) with their labels, as the model gets them."""
    return _grid("Training samples as the model sees them", images, [*map(_shown, labels)], [INK] * len(labels))


def predictions(images: Images, truth: Sequence[str], predicted: Sequence[str], confidence: Floats) -> Figure:
    """Draw images (N, H, W) with what each was read as: green where right, red where wrong; confidence is (N,)."""
    captions, colours = [], []
    for a, b, share in zip(truth, predicted, confidence, strict=True):
        captions.append(f"{_shown(b)} {_percent(share)}" + (f" (true {_shown(a)})" if a != b else ""))
        colours.append(GREEN if a == b else RED)
    title = f"{colours.count(GREEN):,} of these {len(colours):,} images read correctly"
    return _grid(title, images, captions, colours)


def worst_errors(images: Images, truth: Sequence[str], predicted: Sequence[str], confidence: Floats) -> Figure:
    """Draw the errors among images (N, H, W), the most confident first, at most 40; confidence is (N,)."""
    errors = np.array([i for i, (a, b) in enumerate(zip(truth, predicted, strict=True)) if a != b], dtype=int)
    if not len(errors):
        return new_page(f"No errors to show: all {len(truth):,} images are read correctly", HEADER)[0]
    worst = errors[np.argsort(-confidence[errors], kind="stable")][:40]  # NaN goes last
    figure = predictions(images[worst], [truth[i] for i in worst], [predicted[i] for i in worst], confidence[worst])
    figure.texts[0].set_text(f"{len(worst)} of {len(errors):,} errors, the most confident first")
    return figure


def suspects(images: Images, labels: Sequence[str], read: Sequence[str], sure: Sequence[float], title: str) -> Figure:
    """Draw images (N, H, W) by rank with the label each has → what was read, red where they differ."""
    captions = [f"{_shown(a)} → {_shown(b)}" for a, b in zip(labels, read, strict=True)]
    notes = [f"{rank}.  {_percent(share)} sure" for rank, share in enumerate(sure, start=1)]
    return _grid(title, images, captions, [GREEN if a == b else RED for a, b in zip(labels, read, strict=True)], notes)


def confused_pairs(
    images: Images, truth_index: Integers, predicted_index: Integers, classes: Sequence[str], top: int = 10
) -> Figure:
    """Draw the most frequent confusions of images (N, H, W), a row each; the indices (N,) point into classes."""
    wrong = np.flatnonzero(truth_index != predicted_index)
    if not len(wrong):
        return new_page(f"No errors to show: all {len(truth_index):,} images are read correctly", HEADER)[0]
    pairs = Counter(zip(truth_index[wrong].tolist(), predicted_index[wrong].tolist(), strict=True)).most_common(top)
    names = [f"{_shown(classes[a])} → {_shown(classes[b])}" for (a, b), _ in pairs]
    scale = max(1, round(85 / max(images.shape[1:])))
    height, width = scale * images.shape[1], scale * images.shape[2]
    left, row = MARGIN + max(_extent(name, 13) for name in names) + 86, height + 20
    room = max(1, min(8, int((WIDTH - MARGIN - left + 8) // (width + 8))))
    title = f"The most frequent confusions (true → predicted): {sum(n for _, n in pairs):,} of {len(wrong):,} errors"
    figure, page = new_page(title, HEADER + len(pairs) * row)
    for y, name, ((a, b), count) in zip(range(HEADER, HEADER + len(pairs) * row, row), names, pairs, strict=True):
        number = f"{count:,}\N{MULTIPLICATION SIGN}"
        page.text(MARGIN, y + height / 2, name, color=INK, size=13, va="center", parse_math=False)
        page.text(left - 18, y + height / 2, number, color=GREY, size=11, va="center", ha="right")
        for column, i in enumerate(np.flatnonzero((truth_index == a) & (predicted_index == b))[:room]):
            _draw(page, images[i], left + column * (width + 8), y, scale)
    return figure


def confusion(matrix: Integers, classes: Sequence[str]) -> Figure:
    """Draw the errors of a confusion matrix of counts (C, C), true class by row, in % of the true class.

    The diagonal is grey. More than 400 classes are drawn in blocks, each with the largest share found in it.
    """
    count, total = len(classes), max(1, matrix.sum())
    share = matrix.astype(np.float32) * (100 / np.maximum(matrix.sum(axis=1, keepdims=True), 1)).astype(np.float32)
    np.fill_diagonal(share, -1)
    worst, block = max(0.0, float(share.max())) or 1.0, ceil(count / 400)
    starts = np.arange(0, count, block)
    share = np.maximum.reduceat(np.maximum.reduceat(share, starts, axis=0), starts, axis=1)
    share[share == 0] = np.nan
    names = [_shown(name) for name in classes] if block == 1 else []
    step, size = 1 if count <= 70 else ceil(count / 50), 9 if count <= 30 else 6.5
    longest = max((_extent(name, size) for name in names), default=0)
    upright = longest > 700 * step / count
    left, side = MARGIN + 34 + longest, 826 - MARGIN - longest
    title = f"{np.trace(matrix) / total:.2%} of {matrix.sum():,} images read correctly; colour shows the errors"
    figure, _ = new_page(title, HEADER + side + (longest if upright else 14) + 50)
    axes = panel(figure, left, HEADER, side, side)
    colours, scale = ERRORS.with_extremes(bad="white", under=LINE), PowerNorm(0.5, vmin=0, vmax=worst)
    heat = axes.imshow(share, cmap=colours, norm=scale, interpolation="nearest")
    axes.grid(visible=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(np.arange(0, len(names), step), names[::step], size=size, parse_math=False)
        if count <= 70:
            axis.set_ticks(np.arange(count - 1) + 0.5, minor=True)
            axis.grid(which="minor", color=LINE, linewidth=0.5)
    axes.tick_params("x", rotation=90 if upright else 0)
    axes.set_xlabel("predicted class" if block == 1 else f"predicted class (a dot covers {block} by {block} classes)")
    axes.set_ylabel("true class")
    bar = figure.colorbar(heat, cax=panel(figure, left + side + 24, HEADER, 12, side), label="share of the true class")
    ticks = worst * np.linspace(0, 1, 9) ** 2
    bar.set_ticks(ticks.tolist(), labels=[f"{tick:.3g}%" for tick in ticks])
    bar.outline.set_visible(False)
    if count <= 15:
        for row, column in np.argwhere(matrix):
            ink = "white" if share[row, column] > worst / 3 else INK
            axes.text(column, row, f"{matrix[row, column]:,}", color=ink, size=8, ha="center", va="center")
    return figure


def curves(history: Sequence[Mapping[str, float]], kept: float | None = None) -> Figure:
    """Draw loss, errors and learning rate by epoch from rows of logged values; what was not logged is left out.

    The epoch whose weights were kept is marked; where that is not given, the one of least validation error (of lines,
    least character error rate).
    """
    lines: dict[str, dict[float, float]] = {}  # name -> epoch -> value
    for number, row in enumerate(history):
        for name, value in row.items():
            if name.endswith("/accuracy"):  # to an error in %, where the rounding of float32 does not count
                name, value = name.replace("accuracy", "error"), abs(round(100 - 100 * value, 4))
            elif name in ("val/cer", "val/wer"):
                value = round(100 * value, 4)
            if isfinite(value):
                lines.setdefault(name, {})[row.get("epoch", number)] = value
    rates = [name for name in lines if name == "lr" or name.startswith("lr-")]
    errors = ["train/error", "val/error", "val/cer", "val/wer"]
    panels = {"Loss": ["train/loss", "val/loss"], "Error, %": errors, "Learning rate": rates}
    shown = [(title, found) for title, names in panels.items() if (found := [name for name in names if name in lines])]
    if not shown:
        return new_page("No learning curves yet: nothing has been logged", HEADER)[0]
    epochs = [epoch for _, names in shown for name in names for epoch in lines[name]]
    judge = next((name for name in ("val/cer", "val/error") if name in lines), "val/loss")
    judged = lines.get(judge, {})
    best = kept if kept in judged else min(judged, key=judged.__getitem__, default=None)
    title = "Learning curves, without validation"
    if best is not None:
        name = judge.removeprefix("val/").replace("cer", "CER")
        title = f"Best at epoch {best:g}: validation {name} {judged[best]:.4g}" + "%" * (judge != "val/loss")
    figure, _ = new_page(title, HEADER + 300 * len(shown) + 30 - 100 * bool(rates))
    for place, (title, names) in enumerate(shown):
        axes = panel(figure, 84, HEADER + 24 + 300 * place, WIDTH - 84 - MARGIN, 140 if names == rates else 240, title)
        values = [value for name in names for value in lines[name].values()]
        wide = title == "Loss" and 0 < 20 * min(values) < max(values)
        zero = log_axis(axes, values) if wide or title == "Error, %" else -inf
        if best is not None:
            axes.axvline(best, linestyle="--", color=GREY, linewidth=1, label="best epoch")
        for name in names:
            colour = GREEN if name == "val/wer" else {"t": ORANGE, "v": BLUE}.get(name[0], INK)
            marker, heights = "o-" if len(lines[name]) <= 40 else "-", [max(y, zero) for y in lines[name].values()]
            axes.plot(list(lines[name]), heights, marker, color=colour, linewidth=1.6, markersize=3, label=name)
        axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
        if names != rates:
            axes.legend(ncols=4, frameon=False, fontsize=8, labelcolor=GREY, **LEGEND)
    axes.set_xlabel("epoch")
    return figure


def reliability(confidence: Floats, correct: NDArray[np.bool_], bins: int = 15) -> Figure:
    """Draw how often predictions of each confidence are right, from confidence (N,) in 0..1 and correct (N,)."""
    known = np.isfinite(confidence)
    sure, right = np.clip(confidence[known].astype(np.float64), 0, 1), correct[known].astype(np.float64)
    if not len(sure):
        return new_page("No predictions to judge the confidence of", HEADER)[0]
    which = np.minimum((sure * bins).astype(int), bins - 1)
    used, place, counts = np.unique(which, return_inverse=True, return_counts=True)
    claimed, found = (100 * np.bincount(place, values) / counts for values in (sure, right))
    error = np.abs(claimed - found) @ counts / len(sure)
    title = f"Expected calibration error {error:.1f}%: on average {sure.mean():.1%} sure, {right.mean():.1%} right"
    figure, _ = new_page(title, 600)
    axes = panel(figure, 84, HEADER + 24, WIDTH - 84 - MARGIN, 440, "Images read correctly, %")
    axes.bar((used + 0.5) * 100 / bins, found, 90 / bins, color=BLUE, label="read correctly")
    axes.vlines(claimed, np.minimum(claimed, found), np.maximum(claimed, found), color=ORANGE, linewidth=2)
    axes.plot([0, 100], [0, 100], "--", color=GREY, linewidth=1, label="perfect calibration")
    axes.plot(claimed, claimed, "o", color=ORANGE, markersize=5, label="mean confidence")
    axes.set(xlim=(0, 100), ylim=(0, 104))
    axes.legend(ncols=4, frameon=False, fontsize=8, labelcolor=GREY, **LEGEND)
    texts = [f"{100 * i / bins:.0f}-{100 * (i + 1) / bins:.0f}\n{n:,}" for i, n in zip(used, counts, strict=True)]
    axes.set_xticks((used + 0.5) * 100 / bins, texts, size=min(8, 120 / bins))
    axes.set_xlabel("confidence in %, and the number of images")
    return figure


def before_and_after(rows: Sequence[tuple[str, str, float, float | None, float | None]], what: str) -> Figure:
    """Draw errors before and after fine-tuning with their intervals.

    Args:
        rows: Data, ``before`` or ``after``, and the error in 0..1 with the ends of its interval, where there is one.
        what: The errors are, with the split.
    """
    names = list(dict.fromkeys(data for data, *_ in rows))
    found = {(data, when): 100 * error for data, when, error, *_ in rows}
    title = "; ".join(f"{data}: {found[data, 'before']:.3g}% → {found[data, 'after']:.3g}%" for data in names)
    height = 90 * len(names)
    figure, _ = new_page(title, HEADER + 24 + height + 56)
    axes = panel(figure, 110, HEADER + 24, WIDTH - 110 - 4 * MARGIN, height, f"{what}, %")
    for data, when, error, low, high in rows:
        y = names.index(data) + (0.16 if when == "after" else -0.16)
        colour = BLUE if when == "after" else ORANGE
        if low is not None and high is not None:
            axes.hlines(y, 100 * low, 100 * high, color=colour, alpha=0.3, linewidth=7)
        axes.plot(100 * error, y, "o", color=colour, markersize=7, label=when if data == names[0] else None)
        end = 100 * max(error, high or 0)
        axes.annotate(
            f"{100 * error:.3g}", (end, y), (7, 0), textcoords="offset points", size=8, color=GREY, va="center"
        )
    axes.set_yticks(range(len(names)), names)
    axes.set(ylim=(len(names) - 0.5, -0.5))
    axes.set_xlim(0, 1.08 * max(100 * max(error, high or 0) for *_, error, _, high in rows) or 1)
    axes.grid(visible=False, axis="y")
    axes.legend(ncols=2, frameon=False, fontsize=8, labelcolor=GREY, **LEGEND)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG of 120 dpi; path holds the old file or the whole new one and never half of it."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    write_bytes(path, content.getvalue())


def new_page(title: str, height: float) -> tuple[Figure, Axes]:
    """Return a figure with a title and the axes that cover it, in pixels from the top left corner."""
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    page.set_axis_off()
    figure.text(MARGIN / WIDTH, 1 - 34 / height, title, color=INK, size=12, weight="bold", va="center")
    return figure, page


def panel(figure: Figure, left: float, top: float, width: float, height: float, title: str = "") -> Axes:
    """Return plain axes at a place in pixels."""
    page = figure.get_figheight() * DPI
    axes = figure.add_axes((left / WIDTH, 1 - (top + height) / page, width / WIDTH, height / page), axisbelow=True)
    axes.set_title(title, loc="left", color=INK, size=9)
    axes.spines[:].set_color(LINE)
    axes.tick_params(which="both", length=0, labelcolor=GREY, labelsize=8)
    axes.grid(color=LINE, linewidth=0.8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=GREY, size=9)
        axis.set_major_formatter("{x:g}")
    return axes


def log_axis(axes: Axes, values: Sequence[float]) -> float:
    """Make the y axis logarithmic with plain numbers; return the height at which a zero is to be drawn, if any."""
    positive = [value for value in values if value > 0] or [1.0, 10.0]
    low, high = min(positive) / 1.15, max(positive) * 1.15
    ticks = [step * 10.0**power for power in range(-9, 9) for step in (1, 2, 5)]
    if high < 5 * low:
        ticks = [float(tick) for tick in MaxNLocator(5).tick_values(low, high)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    zero = low / 2 if min(values) <= 0 else 0.0
    axes.set(yscale="log", ylim=(zero / 1.15 or low, high))
    axes.set_yticks([zero, *ticks][not zero :], ["0", *(f"{tick:g}" for tick in ticks)][not zero :])
    axes.minorticks_off()
    return zero


def _grid(
    title: str, images: Images, captions: Sequence[str], colours: Sequence[str], notes: Sequence[str] = ()
) -> Figure:
    """Draw images (N, H, W) in rows, each with a coloured caption (in two lines if too wide), perhaps a grey note."""
    if not len(images):
        return new_page("No images to show", HEADER)[0]
    scale = max(1, round(100 / max(images.shape[1:])))
    height, width = scale * images.shape[1], scale * images.shape[2]
    captions = [text if _extent(text, 8) <= width else text.replace(" (true", "\n(true") for text in captions]
    cell = max(width, *(_extent(line, 8) for text in [*captions, *notes] for line in text.split("\n"))) + 12
    columns = max(1, int((WIDTH - 2 * MARGIN + 12) // cell))
    cell = (WIDTH - 2 * MARGIN + 12) / columns
    row = height + 36 + 18 * (bool(notes) or any("\n" in caption for caption in captions))
    figure, page = new_page(title, HEADER + ceil(len(images) / columns) * row)
    for i, (image, caption, colour) in enumerate(zip(images, captions, colours, strict=True)):
        x, y = round(MARGIN + i % columns * cell + (cell - 12 - width) / 2), HEADER + i // columns * row
        _draw(page, image, x, y, scale)
        how: dict[str, Any] = {"size": 8, "ha": "center", "va": "top", "parse_math": False}
        page.text(x + width / 2, y + height + 5, caption, color=colour, **how)
        if notes:
            page.text(x + width / 2, y + height + 22, notes[i], color=GREY, **how)
    return figure


def _draw(page: Axes, image: Images, x: float, y: float, scale: int) -> None:
    """Draw one image (H, W), inverted, with a thin frame, in a whole number of screen pixels for each of its own."""
    x1, y1 = x + image.shape[1] * scale, y + image.shape[0] * scale
    page.imshow(255 - image, "gray", aspect="auto", interpolation="nearest", vmin=0, vmax=255, extent=(x, x1, y1, y))
    page.plot([x, x1, x1, x, x], [y, y, y1, y1, y], color=LINE, linewidth=0.8)


def _shown(name: str) -> str:
    """Return a class name as the font can draw it: U+4E00 for what it lacks, cut when long."""
    text = "".join(c if c.isprintable() and FONT.get_char_index(ord(c)) else f"U+{ord(c):04X}" for c in name)
    text = text if text.strip() else "␣" * len(text)
    return text if len(text) <= 18 else text[:17] + "…"


def _percent(share: float) -> str:
    return ">99%" if 0.995 <= share < 1 else f"{share:.0%}"


def _extent(text: str, size: float) -> float:
    """Return the width of a line of text in pixels."""
    FONT.set_size(size, DPI)
    FONT.set_text(text)
    return FONT.get_width_height()[0] / 64
