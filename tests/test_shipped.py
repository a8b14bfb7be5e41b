"""The models that come with the package."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from photos import photo
from PIL import Image
from safetensors.torch import load_file

from hwr import Recognizer, bundle, decoders
from hwr.text import ErrorRate

DATA = Path(os.environ.get("HWR_DATA_DIR", "data"))
COPISTE = DATA / "copiste"
MNIST = DATA / "MNIST" / "raw"
PAPERS = {
    "textured": {"texture": 8.0, "offset": (0.4, -0.5)},
    "lit from a side": {"gradient": 0.4, "shadow": 0.3},
    "noisy": {"noise": 12.0, "blur": 0.02, "jpeg": 60},
    "small": {"fill": 0.25},
}


@pytest.mark.parametrize("folder", sorted(bundle.SHIPPED.iterdir()), ids=lambda p: p.name)
def test_a_shipped_model_says_what_it_is(folder: Path, tmp_path: Path) -> None:
    about = json.loads((folder / "bundle.json").read_text())["about"]
    assert {"name", "data", "licence", "command", "seed", "versions"} <= set(about)
    assert sum(f.stat().st_size for f in folder.iterdir()) <= {"mnist": 3e6, "copiste": 8e6}[folder.name]
    assert all(w.element_size() == 2 for w in load_file(folder / "weights.safetensors").values() if w.ndim)
    card = (folder / "README.md").read_text()
    assert about["licence"] in card
    assert "val/accuracy" in card or "val/cer" in card
    assert "test/accuracy" in card or "test/cer" in card
    model = bundle.load(folder)
    assert f"- parameters: {sum(p.numel() for p in model.build().parameters()):,}\n" in card
    model.save(tmp_path / "again", half=True)
    assert (tmp_path / "again" / "README.md").read_text() == card


def test_mnist_reads_digits_of_other_writers_and_scanners(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = digits
    recognizer = Recognizer.load("mnist")
    seen = np.stack([recognizer.preprocess(image) for image in images])
    right = recognizer.probabilities(seen).argmax(1) == labels
    assert right.mean() > 0.95  # it never saw one of scikit-learn's digits


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.is_dir(), reason="no MNIST/raw in $HWR_DATA_DIR or data/")
@pytest.mark.parametrize("paper", PAPERS)
def test_mnist_reads_photographs(paper: str, tmp_path: Path) -> None:
    images = np.frombuffer((MNIST / "t10k-images-idx3-ubyte").read_bytes(), np.uint8, offset=16).reshape(-1, 28, 28)
    labels = np.frombuffer((MNIST / "t10k-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    rng = np.random.default_rng(5)
    chosen = rng.choice(10_000, 100, replace=False)
    paths = [tmp_path / f"{i}.png" for i in chosen]
    for i, path in zip(chosen, paths, strict=True):
        Image.fromarray(photo(images[i], rng, **PAPERS[paper])).save(path)
    readings = list(Recognizer.load("mnist").read_files(paths))
    right = [reading.label == str(labels[i]) for i, reading in zip(chosen, readings, strict=True)]
    assert np.mean(right) >= 0.9


@pytest.mark.skipif(not (COPISTE / "val.tsv").is_file(), reason="HWR_DATA_DIR names no folder with copiste/")
@pytest.mark.parametrize(("decoder", "worst"), [(decoders.greedy, 0.16), (decoders.beam, 0.13)])
def test_copiste_reads_hands_that_it_has_not_seen(decoder: Callable[[bundle.Bundle], object], worst: float) -> None:
    rows = [row.split("\t") for row in (COPISTE / "val.tsv").read_text(encoding="utf-8").splitlines()[1::9]]
    recognizer = Recognizer.load("copiste", decoder=decoder)
    rate = ErrorRate()
    for (_, writer, text), reading in zip(rows, recognizer.read_files(COPISTE / row[0] for row in rows), strict=True):
        rate.add(text, reading.text, writer)
    assert rate.lines > 50
    assert rate.cer < worst
