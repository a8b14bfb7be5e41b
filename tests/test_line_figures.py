"""What is shown of lines: differences in their place and colour, pictures in every odd case, and all of a whole run."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawings import drawn, texts
from line_fixtures import line_image, write_table
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from hwr import figures, line_figures
from hwr.line_figures import COLOURS, COLUMNS, differences, drawable, printable
from hwr.reports import LineReading

Run = Callable[..., subprocess.CompletedProcess[str]]
NORMAL = line_image(64, 600) // 2


def colours(figure: Figure) -> dict[str, str]:
    """Return the colour of each text in a figure."""
    return {text.get_text(): to_hex(text.get_color()) for text in figure.axes[0].texts}


def reading(
    reference: str, hypothesis: str, name: str = "a.png", writer: str | None = None, id: int = 0
) -> LineReading:
    """Return a reading."""
    return LineReading(id, name, writer, reference, hypothesis, 0.5)


def flat(reference: str, hypothesis: str) -> list[tuple[str, str, str]]:
    """Return the runs of a single row."""
    (row,) = differences(reference, hypothesis, np.inf, printable)
    return [tuple(run) for run in row]


@pytest.mark.parametrize(
    ("reference", "hypothesis", "runs"),
    [
        ("le chat", "le chat", [("equal", "le chat", "le chat")]),
        ("le chat", "le chut", [("equal", "le ch", "le ch"), ("substitute", "a", "u"), ("equal", "t", "t")]),
        ("le chat", "le cht", [("equal", "le ch", "le ch"), ("delete", "a", "·"), ("equal", "t", "t")]),
        ("le chat", "le chaat", [("equal", "le cha", "le cha"), ("insert", "·", "a"), ("equal", "t", "t")]),
        ("ab cd", "abcd", [("equal", "ab", "ab"), ("delete", " ", "·"), ("equal", "cd", "cd")]),
        ("ab cd", "ab-cd", [("equal", "ab", "ab"), ("substitute", "␣", "-"), ("equal", "cd", "cd")]),
        ("", "ab", [("insert", "··", "ab")]),
        ("ab", "", [("delete", "ab", "··")]),
        ("", "", []),
        ("e\u0301t\u0065\u0301", "été", [("equal", "été", "été")]),  # NFC first, as it is counted
        ("中", "a", [("substitute", "中", "a ")]),  # two columns wide
        ("\u200b\u200b", "a", [("substitute", "U+200B ", "a      "), ("delete", "U+200B ", "·······")]),
        ("\u0302", "a", [("substitute", "◌\u0302", "a")]),
    ],
)
def test_differences_stand_one_above_the_other(
    reference: str, hypothesis: str, runs: list[tuple[str, str, str]]
) -> None:
    assert flat(reference, hypothesis) == runs


def test_differences_break_long_lines_and_lose_nothing() -> None:
    reference, hypothesis = "un deux trois quatre cinq " * 12, "un deux tris quatree cinq " * 12
    rows = differences(reference, hypothesis, 40, printable)
    assert len(rows) == 9
    assert all(sum(len(run.reference) for run in row) <= 40 for row in rows)
    assert "".join(run.reference for row in rows for run in row).replace("·", "") == reference.strip()
    assert "".join(run.hypothesis for row in rows for run in row).replace("·", "") == hypothesis.strip()


def test_what_no_font_has_is_given_by_code_point() -> None:
    assert [drawable(c) for c in "é§œ⟨"] == list("é§œ⟨")
    assert drawable("\U00020000") in ("\U00020000", "U+20000")
    assert drawable("\ue000") == "U+E000"
    assert printable("一") == "一"


def test_predictions_colour_each_kind_of_difference() -> None:
    figure = line_figures.predictions([NORMAL], [reading("abcdef ghi", "abXdef gzzi", "n.png", "w1")])
    found = colours(figure)
    assert found["X"] == COLOURS["substitute"]
    assert found["c"] == COLOURS["substitute"]
    for kind, text in (("equal", "def"), ("insert", "too"), ("delete", "missing")):
        assert found[text] == COLOURS[kind]
    assert texts(figure)[0] == "0 of these 1 lines read without an error; CER 30.0%"
    assert "n.png by w1  CER 30.0%  50% sure" in texts(figure)
    drawn(figure)
    right = line_figures.predictions([NORMAL], [reading("abc", "abc")])
    assert colours(right)["abc"] == figures.GREEN


def test_words_keep_to_their_columns() -> None:
    figure = line_figures.predictions([NORMAL], [reading("un deux trois", "un deuux trois")])
    places = {text.get_text(): text.get_position()[0] for text in figure.axes[0].texts}
    left = places["un"]
    assert (places["deu"] - left) / line_figures.COLUMN == 3
    assert (places["trois"] - left) / line_figures.COLUMN == 9


ODD = [
    reading("", "quelque chose"),
    reading("rien du tout", ""),
    reading("", ""),
    reading("illisible", "", id=-1, name="folder/lost_line.png"),
    reading("中文手写识别" * 12, "中文手与识" * 12, writer="一"),
    reading(r"$x_1$ \alpha % 🙂 نص \u200b" + "\u200b", "$"),
    reading("a" * 900, "b" * 700, name="n" * 300 + ".png"),
    reading("e\u0303\u0302 x", "e\u0303 x"),
]


@pytest.mark.parametrize("width", [1, 300, 1000, 8000])
def test_odd_lines_can_be_drawn(width: int) -> None:
    image = np.full((64, width), 99, np.uint8)
    images = [image if line.id >= 0 else None for line in ODD]
    for figure in (line_figures.predictions(images, ODD), line_figures.worst_lines(images, ODD)):
        pixels = drawn(figure)
        assert pixels.shape[1] == 1000
        page = figure.axes[0]
        assert all(0 <= i.get_extent()[0] < i.get_extent()[1] <= 976 for i in page.images)
        boxes = [text.get_window_extent() for text in page.texts]
        assert all(box.x1 <= figure.bbox.x1 and box.y0 >= 0 for box in boxes)
        assert "no image: the line could not be read" in texts(figure)
    strips = len(line_figures.samples([image], ["a"]).axes[0].images)
    assert strips == {1: 1, 300: 1, 1000: 1, 8000: 4}[width]
    assert drawn(line_figures.samples([image] * len(ODD), [line.reference for line in ODD])).shape[1] == 1000


@pytest.mark.parametrize("readings", [[], ODD, ODD[:1], ODD[2:3], [reading("abc", "abc")]], ids=len)
def test_charts_of_odd_readings_can_be_drawn(readings: list[LineReading]) -> None:
    for chart in (line_figures.confusions, line_figures.cer_by_length, line_figures.cer_by_writer):
        assert drawn(chart(readings)).shape[1] == 1000
    drawn(line_figures.predictions([None] * len(readings), readings))


def test_ink_is_dark_on_white_paper() -> None:
    image = np.zeros((48, 400), np.uint8)
    image[:, 200:] = 255
    figure = line_figures.samples([image], ["a"])
    pixels = drawn(figure)
    left, right, bottom, top = figure.axes[0].images[0].get_extent()
    row = pixels[round((top + bottom) / 2), :, 0]
    assert (row[round(left) + 3 : round((left + right) / 2) - 4] > 250).all()
    assert (row[round((left + right) / 2) + 4 : round(right) - 2] < 5).all()


def test_worst_are_the_lines_with_most_edits_per_character() -> None:
    lines = [
        reading("aaaaaaaaaa", "aaaaaaaaab", "one of ten"),
        reading("aa", "ab", "one of two"),
        reading("a", "a", "right"),
        reading("", "x", "from nothing"),
        *[reading("lost", "", f"lost {i}", id=-1) for i in range(5)],
    ]
    names = [line.name for line in line_figures.worst(lines)]
    assert names == ["from nothing", "lost 0", "lost 1", "one of two", "one of ten"]
    assert [line.name for line in line_figures.worst(lines, 1)] == ["from nothing"]
    assert "No errors" in texts(line_figures.worst_lines([], []))[0]


def test_confusions_name_nothing_and_space() -> None:
    figure = line_figures.confusions([reading("aa bé", "aabe"), reading("bé", "be"), reading("abc", "abcn")])
    shown = texts(figure)
    assert "4 of 4 edits" in shown[0]
    names = [text for text in shown if "→" in text][1:]
    assert names == ["é → e", "∅ → n", "␣ → ∅"]
    assert "2  (50.0%)" in shown


def test_writers_are_ranked_and_limited() -> None:
    lines = [reading("a" * 100, "a" * (100 - i) + "b" * i, writer=f"hand {i:02}") for i in range(60)]
    figure = line_figures.cer_by_writer([*lines, reading("abc", "", writer=None)])
    names = [text for text in texts(figure) if text.startswith("hand ")]
    assert names == [f"hand {i:02}" for i in range(59, 19, -1)]
    assert "the 40 worst of 60 writers" in texts(figure)[0]
    assert " 59.0%  WER 100.0%  1 line" in texts(figure)
    drawn(figure)
    assert texts(line_figures.cer_by_writer([reading("a", "a")]))[0] == "No writers are known"


def test_lengths_are_in_order() -> None:
    lines = [reading("a" * 5, "a" * 4), reading("a" * 5, "a" * 5), reading("a" * 90, "b" * 90)]
    shown = texts(line_figures.cer_by_length(lines))
    assert [text for text in shown if text in ("1-10", "over 80")] == ["1-10", "over 80"]
    assert " 10.0%  WER  50.0%  2 lines" in shown


def test_curves_of_lines() -> None:
    rows = [
        {"epoch": 1, "train/loss": 9.0, "val/loss": 8.0, "val/cer": 1.2, "val/wer": 1.0, "lr": 1e-3},
        {"epoch": 2, "train/loss": 1.0, "val/loss": 0.7, "val/cer": 0.25, "val/wer": 0.5, "lr": 5e-4},
        {"epoch": 3, "train/loss": 0.5, "val/loss": 0.6, "val/cer": 0.3, "val/wer": float("inf")},
    ]
    figure = figures.curves(rows)
    drawn(figure)
    lines = {line.get_label(): np.asarray(line.get_ydata()).tolist() for axes in figure.axes for line in axes.lines}
    assert lines["val/cer"] == pytest.approx([120, 25, 30])
    assert lines["val/wer"] == pytest.approx([100, 50])
    assert [axes.get_title(loc="left") for axes in figure.axes[1:]] == ["Loss", "Error, %", "Learning rate"]
    assert figure.texts[0].get_text() == "Best at epoch 2: validation CER 25%"


# ---- a whole run


WORDS = ["un", "deux", "trois", "été", "chat", "noir", "le", "la", "rue", "mai"]
PNG = {"samples", "worst_lines", "predictions", "confusions", "cer_by_length", "cer_by_writer"}
TABLES = {"lines.csv", "confusions.csv", "by_length.csv", "by_writer.csv"}
FIGURES = {f"test/{name}{part}" for name in ("cer", "wer") for part in ("", "_low", "_high")}
FIGURES |= {"test/lines", "test/characters", "test/lost"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of two epochs over 24 lines of words that no network can read, one of them without its image."""
    from hwr import train
    from hwr.config import compose
    from hwr.experiment import fit

    folder = tmp_path_factory.mktemp("lines")
    for split, first, count in (("train", 0, 12), ("val", 4, 5), ("test", 8, 7)):
        rows = [(f"{split}{i}.png", WORDS[(first + i) % len(WORDS)], f"{split} hand {i % 3}") for i in range(count)]
        if split == "test":
            rows[2] = ("missing.png", *rows[2][1:])
        write_table(folder / "data" / f"{split}.tsv", rows, ("image", "text", "writer"))
        for i in range(count):
            if (path := folder / "data" / f"{split}{i}.png").exists():
                Image.fromarray(line_image(32, 90 + i, seed=100 * first + i)).save(path)
    stages = "[{channels: 4, kernel: 3}, {channels: 4}, {channels: 4}, {channels: 4, pool: [2, 1]}]"
    settings = ["experiment=tsv_crnn", f"data.path={folder / 'data'}", "data.cache=null", "charset=french"]
    settings += [f"network.stages={stages}", "network.width=8", "network.hidden=8", "network.layers=1"]
    settings += ["trainer.max_epochs=2", "trainer.precision=32-true", "trainer.accelerator=cpu"]
    cfg = compose("train", settings)
    cfg.run_dir = str(folder / "run")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        train.report(fit(cfg))
    (folder / "printed.txt").write_text(printed.getvalue(), encoding="utf-8")
    return folder / "run"


def test_fit_leaves_pictures_tables_and_figures(run: Path) -> None:
    assert {path.stem for path in (run / "figures").glob("*.png")} == {*PNG, "curves"}
    assert all(Image.open(path).size[0] == 1000 for path in (run / "figures").glob("*.png"))
    assert {path.name for path in run.glob("*.csv")} == {*TABLES, "history.csv"}
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"val/cer", "val/wer", *FIGURES} <= metrics.keys()
    assert (metrics["test/lines"], metrics["test/lost"]) == (7, 1)
    with (run / "lines.csv").open(encoding="utf-8", newline="") as file:
        assert len([*csv.DictReader(file)]) == 7


def test_tensorboard_has_the_pictures_and_a_dashboard_of_lines(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.custom_scalar import layout_pb2

    (folder,) = {path.parent for path in (run / "tensorboard").rglob("events.*")}
    events = EventAccumulator(str(folder), {"images": 0, "tensors": 0, "scalars": 0})
    events.Reload()
    pictures = {f"test/{name}" for name in PNG - {"samples"}}
    assert set(events.Tags()["images"]) == {"samples", "curves", "val/predictions", *pictures}
    assert len(events.Images("val/predictions")) == 2
    (layout,) = (tag for tag in events.Tags()["tensors"] if "custom_scalars" in tag)
    pages = layout_pb2.Layout.FromString(events.Tensors(layout)[0].tensor_proto.string_val[0])
    tags = {tag for page in pages.category for chart in page.chart for tag in chart.multiline.tag}
    assert {"val/cer", "val/wer", "val/blank_fraction", "val/mean_length"} <= tags
    assert {tag for tag in tags if tag.startswith("val/")} <= set(events.Tags()["scalars"])


def test_eval_of_a_run_of_lines(call: Run, run: Path) -> None:
    done = call("eval", f"run={run}", "output=judged", "accelerator=cpu")
    assert done.returncode == 0, done.stderr
    folder = Path("judged")
    assert {path.stem for path in (folder / "figures").glob("*.png")} == PNG - {"samples"}
    assert {path.name for path in folder.glob("*.csv")} == TABLES
    trained, judged = (json.loads((part / "metrics.json").read_text()) for part in (run, folder))
    for name in FIGURES:
        assert judged[name] == pytest.approx(trained[name], abs=1e-6, nan_ok=True), name
    assert f"{judged['test/cer']:.2%}" in done.stdout
    for words in ("95 % interval", "3 writers", "not readable", "NFC", "ms per line, batch 16", "lines.csv"):
        assert words in done.stdout
    done = call("eval", f"run={run}", "split=val", "output=judged_val", "accelerator=cpu")
    assert "validation CER" in done.stdout
    assert "test CER" not in done.stdout


def test_training_prints_a_few_lines_and_what_came_of_it(run: Path) -> None:
    printed = (run.parent / "printed.txt").read_text(encoding="utf-8")
    lines = printed.splitlines()
    true = [i for i, line in enumerate(lines) if line.startswith("  true: ")]
    assert len(true) == 6  # three in each epoch
    assert all(lines[i + 1].startswith("  read: ") for i in true)
    assert {lines[i].removeprefix("  true: ").replace("·", "") for i in true} <= set(WORDS)
    (epoch,) = (line for line in lines if line.startswith("epoch 1/2"))
    assert "val/cer" in epoch
    assert "blank" not in epoch
    for words in ("validation CER", "test WER", "32-true", "parameters", "NFC", "hwr.eval run=", "YOUR_LINE.png"):
        assert words in printed


def test_colours_of_the_terminal() -> None:
    from hwr.callbacks.line_gallery import coloured

    console = Console(force_terminal=True, color_system="standard", width=40)
    with console.capture() as kept:
        for line in coloured(reading("abc de", "abX dee"), 40):
            console.print(line, soft_wrap=True)
    above, below = kept.get().splitlines()
    assert above == "  true: ab\x1b[1;31mc\x1b[0m d\x1b[1;33m·\x1b[0me"
    assert below == "  read: ab\x1b[1;31mX\x1b[0m d\x1b[1;33me\x1b[0me"
    assert [str(line) for line in coloured(reading("x" * 90, ""), 60)][::2] == [
        "  true: " + "x" * 60,
        "  true: " + "x" * 30,
    ]


def test_long_lines_have_room_on_the_page() -> None:
    assert line_figures.MARGIN + line_figures.LABEL + COLUMNS * line_figures.COLUMN <= figures.WIDTH - figures.MARGIN
