"""Models of lines as a library: what is read, where, in which order, and what is said of images that are none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
import pytest
import torch
from line_fixtures import save
from line_model import LEFT, WIDE, texts, written
from PIL import Image

from hwr import HwrError, Recognizer, decoders
from hwr.line_preprocess import LinePreprocess
from hwr.line_recognizer import LineRecognizer, TextReading

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def recognizer(line_run: Path) -> LineRecognizer:
    found = Recognizer.load(line_run, precision="32-true")
    assert isinstance(found, LineRecognizer)
    return found


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """Lines of many widths and heights, and what they say; more than are prepared at a time."""
    folder = tmp_path_factory.mktemp("scans")
    heights = (40, 64, 33, 90)
    return {
        save(folder / f"{i:03}.png", written(text, heights[i % 4], seed=i)): text
        for i, text in enumerate(texts(280, seed=9))
    }


def test_reads_files_in_their_order(recognizer: LineRecognizer, scans: dict[Path, str]) -> None:
    found = list(recognizer.read_files(scans))
    assert len(found) == 280
    right = sum(reading.text == text for reading, text in zip(found, scans.values(), strict=True))
    assert right > 250
    for reading in found:
        assert len(reading.text) == len(reading.char_confidences) == len(reading.x_spans)
        assert 0 <= reading.confidence <= 1
        assert reading.seen.shape[0] == 32
        assert not reading.blank
    assert np.mean([reading.confidence for reading in found]) > 0.8


def test_bfloat16_reads_as_well(line_run: Path, scans: dict[Path, str]) -> None:
    found = Recognizer.load(line_run, precision="bf16-mixed").read_files(list(scans)[:60])
    assert sum(reading.text == text for reading, text in zip(found, scans.values(), strict=False)) > 52


def test_an_unknown_precision(line_run: Path) -> None:
    with pytest.raises(HwrError, match="precision=16: known are auto, 32-true, bf16-mixed"):
        Recognizer.load(line_run, precision="16")


def test_the_batch_does_not_change_what_is_read(recognizer: LineRecognizer, scans: dict[Path, str]) -> None:
    paths = list(scans)[:60]
    alone = [recognizer.read(path) for path in paths]
    for columns in (1, 700, 100_000):
        for one, other in zip(alone, recognizer.read_files(paths, columns), strict=True):
            assert other.text == one.text
            assert other.x_spans == one.x_spans
            assert other.confidence == pytest.approx(one.confidence, abs=1e-4)
            assert other.char_confidences == pytest.approx(one.char_confidences, abs=1e-4)


def test_many_threads_read_as_one_does(recognizer: LineRecognizer, scans: dict[Path, str]) -> None:
    paths, before, later = list(scans)[:60], torch.get_num_threads(), list[int]()
    try:
        torch.set_num_threads(1)
        alone = list(recognizer.read_files(paths, 700))
        torch.set_num_threads(3)
        for one, other in zip(alone, recognizer.read_files(paths, 700), strict=True):
            assert other.text == one.text
            assert other.char_confidences == pytest.approx(one.char_confidences, abs=1e-4)
        thread = Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert (torch.get_num_threads(), later) == (3, [3])
    finally:
        torch.set_num_threads(before)


def test_paths_pictures_and_arrays_are_read_alike(recognizer: LineRecognizer, scans: dict[Path, str]) -> None:
    path = next(iter(scans))
    grey = np.asarray(Image.open(path))
    sources = (path, str(path), Image.open(path), grey, np.stack([grey] * 3, 2))
    assert len({(r.text, r.confidence, r.x_spans) for r in map(recognizer.read, sources)}) == 1


def centres(reading: TextReading) -> np.ndarray:
    return np.array(reading.x_spans).mean(1)


@pytest.mark.parametrize("height", [25, 40, 100])
def test_spans_lie_on_the_characters_of_the_image(recognizer: LineRecognizer, height: int) -> None:
    scale, near, read = height / 40, 8, 0  # CTC spikes where it likes: up to a third of a character beside it
    for seed, text in enumerate(texts(40, seed=3)):
        reading = recognizer.read(written(text, height, seed=seed))
        if reading.text != text:
            continue
        read += 1
        left, right = np.array(reading.x_spans).T
        assert (left < right).all()
        assert (right[:-1] <= left[1:]).all()
        boxes = LEFT + WIDE * np.arange(len(text))
        at = centres(reading) / scale
        assert ((boxes - near <= at) & (at <= boxes + WIDE + near)).all(), (text, at)
        same = recognizer.read(written(text, 40, seed=seed))
        if same.text == text:
            assert np.abs(at - centres(same)).mean() < 2
    assert read > 30


def test_spans_where_the_line_is_sheared_upright(recognizer: LineRecognizer) -> None:
    """Shearing widens the line on both sides; spans are where the characters are at half the height."""
    preprocess = replace(recognizer.bundle.preprocess, deslant=True)
    upright = LineRecognizer(replace(recognizer.bundle, preprocess=preprocess))
    slant, moved = 0.5, []  # to the right, about the middle row
    for seed, text in enumerate(texts(40, seed=5)):
        image = np.pad(written(text, noise=1, seed=seed), ((0, 0), (20, 20)), mode="edge")
        matrix = np.array([[1, -slant, slant * 20], [0, 1, 0]])
        sheared = cv2.warpAffine(image, matrix, image.shape[::-1], borderValue=225)
        straight, found = recognizer.read(image), upright.read(sheared)
        if straight.text == found.text:
            assert found.seen.shape[1] > straight.seen.shape[1] + 10
            moved.append(centres(found) - centres(straight))
    assert len(moved) > 5
    assert abs(np.concatenate(moved).mean()) < 3
    assert np.abs(np.concatenate(moved)).max() < WIDE


def test_spans_where_the_line_is_laid_level(recognizer: LineRecognizer) -> None:
    """Deskewing scales the line; spans are in pixels of the image all the same."""
    model, prepared = recognizer.bundle, LinePreprocess(32, "light_on_dark", contrast=False)
    levelled = LineRecognizer(replace(model, preprocess=replace(model.preprocess, deskew=True)))
    as_it_is = LineRecognizer(replace(model, preprocess=prepared))
    for seed, text in enumerate(texts(20, seed=6)):
        image = np.pad(written(text, noise=1, seed=seed), ((12, 12), (0, 0)), mode="edge")
        found = levelled.read(image)
        seen = as_it_is.read(found.seen)
        assert seen.text == found.text
        scale = image.shape[1] / found.seen.shape[1]
        assert scale < 1.3  # from 64 to 32 rows it would be 2
        np.testing.assert_allclose(found.x_spans, np.array(seen.x_spans) * scale)


def test_blank_paper(recognizer: LineRecognizer) -> None:
    assert recognizer.read(np.full((50, 300), 235, np.uint8)).blank
    assert not recognizer.read(written("1914")).blank


def test_what_cannot_be_read_is_said_in_its_place(
    recognizer: LineRecognizer, scans: dict[Path, str], tmp_path: Path
) -> None:
    good = list(scans)[:2]
    (tmp_path / "bad.png").write_bytes(b"no image")
    save(tmp_path / "long.png", np.full((4, 3000), 200, np.uint8))
    found = list(recognizer.read_files([good[0], tmp_path / "bad.png", tmp_path / "long.png", good[1]]))
    assert [isinstance(reading, HwrError) for reading in found] == [False, True, True, False]
    assert "bad.png: " in str(found[1])
    assert "long.png: " in str(found[2])
    assert "wide" in str(found[2])
    assert found[3].text == recognizer.read(good[1]).text
    with pytest.raises(HwrError, match=r"bad\.png"):
        recognizer.read(tmp_path / "bad.png")
    assert list(recognizer.read_files([])) == []


def test_reading_can_be_broken_off(recognizer: LineRecognizer, scans: dict[Path, str]) -> None:
    readings = recognizer.read_files(scans)
    assert next(readings).text
    readings.close()


def test_decoders_of_a_bundle(line_run: Path, tmp_path: Path) -> None:
    image = written("1914")
    years = Recognizer.load(line_run, decoder=partial(decoders.beam, regex=r"19\d\d"))
    assert years.read(image).text == "1914"
    assert re.fullmatch(r"19\d\d", years.read(written("23 871")).text)
    (tmp_path / "words.txt").write_text("1815\n23\n871\n", encoding="utf-8")
    words = Recognizer.load(line_run, decoder=partial(decoders.beam, lexicon=str(tmp_path / "words.txt")))
    assert words.read(written("23 871")).text == "23 871"
    assert set(words.read(image).text.split()) <= {"1815", "23", "871"}
    entries = partial(decoders.beam, lexicon=str(tmp_path / "words.txt"), separators="")
    assert Recognizer.load(line_run, decoder=entries).read(written("23 871")).text in {"1815", "23", "871"}


def test_wrong_devices_are_refused(line_run: Path) -> None:
    with pytest.raises(HwrError, match="device=cpu"):
        Recognizer.load(line_run, device="nowhere")


def test_a_model_of_lines_needs_neither_lightning_nor_hydra(line_run: Path, scans: dict[Path, str]) -> None:
    blocked = """
import sys
for name in ("lightning", "pytorch_lightning", "hydra", "omegaconf", "torchmetrics", "matplotlib", "tensorboard"):
    sys.modules[name] = None  # importing it raises
import hwr
print(hwr.Recognizer.load(sys.argv[1]).read(sys.argv[2]).text)
"""
    path = next(iter(scans))
    line = [sys.executable, "-c", blocked, str(line_run), str(path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, env=env, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == Recognizer.load(line_run).read(path).text
