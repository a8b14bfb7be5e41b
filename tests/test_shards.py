"""Training from shards: which items come when, on which process, the same figures as from memory, bad shards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from test_pack import lines_data

from hwr.config import compose
from hwr.data.shards.datamodules import LineShards, Shards
from hwr.data.shards.format import INDEX, sealed
from hwr.data.shards.order import AHEAD, SPREAD, ShardOrder
from hwr.data.shards.stream import HELD
from hwr.data.shards.writer import pack
from hwr.errors import HwrError
from hwr.experiment import fit
from hwr.networks.base import LineNetwork
from hwr.parts import datamodule

Run = Callable[..., subprocess.CompletedProcess[str]]
FIRST = "train-000000.tar"


@pytest.fixture(scope="session")
def packed_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded digits in shards of 63 (do not write into it)."""
    folder = tmp_path_factory.mktemp("digits") / "shards"
    pack(datamodule(compose()), folder, 0.05)
    return folder


@pytest.fixture(scope="session")
def packed_lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines of many widths in shards (do not write into it)."""
    folder = tmp_path_factory.mktemp("lines")
    pack(lines_data(folder / "lines"), folder / "shards", 0.1)
    return folder / "shards"


@pytest.fixture
def copied(packed_digits: Path, tmp_path: Path) -> Path:
    """The digits in shards, to be damaged."""
    return shutil.copytree(packed_digits, tmp_path / "copied")


def digits(path: Path | str, **settings: object) -> Shards:
    data = Shards(str(path), **settings)
    data.setup()
    return data


def lines(path: Path, **settings: object) -> LineShards:
    data = LineShards(str(path), **settings)
    data.setup()
    return data


def read(data: Shards | LineShards, rank: int = 0, world: int = 1, epoch: int = 0) -> list[list[int]]:
    """The positions of the training batches of one process, as its loader hands them out."""
    order = data.order("train", rank, world)
    data.order = lambda *_: order
    loader = data.train_dataloader()
    del data.order
    order.set_epoch(epoch)
    batches = [batch.ids.tolist() for batch in loader]
    assert len(batches) == len(order)
    return batches


# Order


def order(counts: list[int], widths: list[int], size: int, **settings: int) -> ShardOrder:
    ends = np.cumsum(counts)
    return ShardOrder(
        lambda shard: np.arange(ends[shard] - counts[shard], ends[shard]),
        np.array(counts),
        np.array(widths),
        lambda width: size // max(1, width),
        **settings,
    )


CASES = [
    ([1], [1], 4),
    ([3, 1], [1, 1], 2),
    ([5, 5, 5, 2], [1, 1, 1, 1], 4),
    ([100] * 7 + [13], [0] * 8, 32),
    ([40, 0, 7, 1, 90, 3], [10, 20, 30, 80, 81, 300], 600),  # one shard with nothing left; few lines are very wide
    ([9, 9, 9], [10, 100, 1000], 500),  # the widest alone exceed a batch
]


@pytest.mark.parametrize("workers", [0, 2, 3])
@pytest.mark.parametrize(
    ("counts", "widths", "size", "world"),
    [(*case, world) for case in CASES for world in (1, 2, 3) if world <= sum(case[0])],
)
def test_every_item_comes_once_in_equally_many_batches(counts, widths, size, world, workers):
    for epoch in (0, 3):
        ranks = []
        for rank in range(world):
            mine = order(counts, widths, size, rank=rank, world=world, workers=workers, seed=5)
            mine.set_epoch(epoch)
            batches = list(mine)
            assert batches == list(mine)  # a function of seed and epoch alone
            assert len(batches) == len(mine)
            assert all(batches)
            ranks.append(batches)
        assert len({len(batches) for batches in ranks}) == 1
        found = sorted(item for batches in ranks for batch in batches for item in batch)
        assert found == list(range(sum(counts)))


def test_batches_of_wide_lines_are_small_and_narrow_ones_do_not_wait_for_them() -> None:
    widths = np.repeat([50, 54, 200, 210, 900], 4)
    counts = [60] * len(widths)
    wide = np.repeat(widths, counts)
    for batch in order(counts, widths.tolist(), 2000):
        assert wide[batch].max() * len(batch) <= 2000
        assert wide[batch].max() <= SPREAD * wide[batch].min()


def test_the_order_is_another_in_every_epoch_and_mixes_shards() -> None:
    counts = [50] * 8
    mine = order(counts, [0] * 8, 10)
    epochs = []
    for epoch in range(3):
        mine.set_epoch(epoch)
        epochs.append([tuple(batch) for batch in mine])
    assert len(set(epochs[0]) & set(epochs[1])) == 0
    shards = [len({item // 50 for batch in epoch[i : i + 8] for item in batch}) for epoch in epochs for i in (0, 12)]
    assert min(shards) >= 3  # of a few batches in a row


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (2, 0), (2, 2)])
def test_a_process_reads_few_shards_at_a_time_and_each_about_once(world, workers):
    counts = [50, 47, 61] * 40
    of = np.repeat(np.arange(120), counts)
    reads = 0
    for rank in range(world):
        held: dict[int, list[int]] = {}
        for number, batch in enumerate(order(counts, [0] * 120, 10, rank=rank, world=world, workers=workers)):
            mine = held.setdefault(number % max(1, workers), [])
            for shard in np.unique(of[batch]).tolist():
                reads += shard not in mine
                mine[:] = [*(other for other in mine if other != shard), shard][-HELD:]
    assert reads <= 1.1 * len(counts) + 10


# Datamodules


def test_two_processes_with_two_workers_each_read_every_digit_once(packed_digits: Path) -> None:
    data = digits(packed_digits, workers=2, batch_size=50)
    for epoch in (0, 1):
        ranks = [read(data, rank, 2, epoch) for rank in (0, 1)]
        assert len(ranks[0]) == len(ranks[1]) == 26
        counts = Counter(item for batches in ranks for batch in batches for item in batch)
        assert set(counts.values()) == {1}
        assert len(counts) == len(data.sets["train"]) == 1294


def test_two_processes_with_two_workers_each_read_every_line_once(packed_lines: Path) -> None:
    data = lines(packed_lines, workers=2, columns=2000)
    ranks = [read(data, rank, 2) for rank in (0, 1)]
    assert len(ranks[0]) == len(ranks[1])
    counts = Counter(item for batches in ranks for batch in batches for item in batch)
    assert sorted(counts) == list(range(60))
    assert set(counts.values()) == {1}


def test_a_batch_holds_what_was_packed(packed_digits: Path, packed_lines: Path) -> None:
    memory = datamodule(compose())
    data = digits(packed_digits)
    place = {image.numpy().tobytes(): i for i, image in enumerate(memory.sets["train"].images)}
    for batch in data.train_dataloader():
        for image, label in zip(batch.images, batch.labels, strict=True):
            assert label == memory.sets["train"].labels[place[image.numpy().tobytes()]]
    assert data.classes == memory.classes
    assert torch.equal(data.class_counts(), memory.class_counts())
    streamed = lines(packed_lines)
    texts = streamed.sets["train"].texts
    for batch in streamed.train_dataloader():
        ends = batch.lengths.cumsum(0).tolist()
        for i, (end, length) in enumerate(zip(ends, batch.lengths.tolist(), strict=True)):
            text = "".join(streamed.classes[label - 1] for label in batch.targets[end - length : end].tolist())
            assert text == texts[int(batch.ids[i])]
            assert not batch.images[i, :, int(batch.widths[i]) :].any()


def test_few_shards_are_in_memory(packed_digits: Path) -> None:
    data = digits(packed_digits)
    for _ in data.train_dataloader():
        assert len(data.sets["train"]._held) <= HELD < len(data.sets["train"].shards)


def test_classes_are_numbered_like_another_models(packed_digits: Path) -> None:
    data = digits(packed_digits)
    before = {int(i): int(label) for b in data.train_dataloader() for i, label in zip(b.ids, b.labels, strict=True)}
    counts = data.class_counts()
    data.as_classes(["x", *map(str, range(9, -1, -1))])
    after = {int(i): int(label) for b in data.train_dataloader() for i, label in zip(b.ids, b.labels, strict=True)}
    assert all(after[i] == 10 - label for i, label in before.items())
    assert data.class_counts().tolist() == [0, *reversed(counts.tolist())]


class Frames(LineNetwork):
    """A network of which only the number of frames counts: one for every 8 pixels begun."""

    stride = 8


def test_lines_that_are_too_narrow_are_left_out_as_from_memory(
    packed_lines: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory, streamed = lines_data(tmp_path), lines(packed_lines, workers=0)
    for data in (memory, streamed):
        caplog.clear()
        data.check_feasible(Frames())
        assert sum("train: lines left out" in message for message in caplog.messages) == 1
        data.record(tmp_path / f"{type(data).__name__}.json")
    ours, theirs = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("LineShards", "TSV"))
    assert 0 < ours["sizes"]["train"] < 60
    assert ours["sizes"] == theirs["sizes"]
    for split in ours["sizes"]:  # what comes after a slash is where the files are
        reasons = [sorted(line.split("/")[0] for line in found["rejected"][split]) for found in (ours, theirs)]
        assert reasons[0] == reasons[1]
    found = [item for batch in read(streamed) for item in batch]
    assert len(found) == len(set(found)) == ours["sizes"]["train"]


@contextmanager
def served(folder: Path, delay: float = 0.0) -> Iterator[str]:
    """The address of a folder, each request for a training shard of which takes so many seconds longer."""

    class Slow(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def parse_request(self) -> bool:
            known = super().parse_request()
            time.sleep(delay if "train-" in self.path else 0)
            return known

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Slow, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "reads ahead"]


def test_shards_are_read_over_http(packed_digits: Path) -> None:
    with served(packed_digits) as address:
        far, near = digits(address, workers=1), digits(packed_digits, workers=1)
        assert read(far) == read(near)
        assert torch.equal(far.sets["val"].images, near.sets["val"].images)
        train = far.sets["train"]
        train.shards = [replace(shard, file=shard.file.replace("/train", "/nowhere/train")) for shard in train.shards]
        with pytest.raises(HwrError, match=r"nowhere/train-.*: cannot be read \(404"):
            train[[0]]
    with pytest.raises(HwrError, match="cannot be read"):
        digits(address)


@pytest.mark.slow
def test_the_latency_of_a_store_is_hidden(packed_digits: Path) -> None:
    """Against the same epoch without reading ahead, computing included, at 0.1 s a shard."""
    seconds: dict[bool, float] = {}
    step = 0.04
    with served(packed_digits, delay=0.05) as address:
        for ahead in (False, True):
            data = digits(address, batch_size=16)
            began, computing = time.perf_counter(), 0.0
            for positions in data.order("train", 0, 1):
                data.sets["train"][positions if ahead else list(positions)]
                computing -= time.perf_counter()
                time.sleep(step)
                computing += time.perf_counter()
            seconds[ahead] = time.perf_counter() - began - computing
    assert seconds[False] > 21 * 0.1
    assert seconds[True] < 0.4 * seconds[False], seconds


def test_reading_ahead_is_bounded_and_leaves_no_thread(packed_digits: Path) -> None:
    near = digits(packed_digits, batch_size=16)
    with served(packed_digits, delay=0.02) as address:
        far = digits(address, batch_size=16)
        stream, most = far.sets["train"], 0
        for position, batch in enumerate(far.train_dataloader()):  # noqa: B007  # the last one is looked at below
            most = max(most, len(stream._held))
            assert len(readers()) <= 1
            if position == 30:
                break
        assert HELD - AHEAD < most <= HELD
        for thread in readers():
            thread.join(5)
        assert not readers()
        assert batch.ids.tolist() == list(near.order("train", 0, 1))[30]
        assert torch.equal(batch.images, near.sets["train"][batch.ids.tolist()].images)


def test_what_cannot_be_read_ahead_is_told_where_it_is_needed(copied: Path) -> None:
    data = digits(copied, batch_size=63)
    batches = list(data.order("train", 0, 1))
    stream = data.sets["train"]
    late = stream.shards[batches[0].soon[-1]]
    damage(Path(late.file))
    assert len(stream[batches[0]].labels) == len(batches[0])  # the background has met it by now, or will
    with pytest.raises(HwrError, match=f"^{late.file}: this shard is damaged .*data.bad_shards=skip$"):
        deque(map(stream.__getitem__, batches[1:]), 0)
    for thread in readers():
        thread.join(5)
    assert not readers()


@pytest.mark.slow
def test_a_process_ends_while_a_store_keeps_it_waiting(packed_digits: Path) -> None:
    with served(packed_digits, delay=5.0) as address:
        code = (
            "from hwr.data.shards.datamodules import Shards\n"
            f"data = Shards({address!r}, batch_size=16)\n"
            "data.setup()\n"
            "next(iter(data.train_dataloader()))\n"
            "import time; print(time.time())"
        )
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run([sys.executable, "-c", code], env=env, text=True, capture_output=True, timeout=120)
        ended = time.time()
    assert (done.returncode, done.stderr) == (0, "")
    assert ended - float(done.stdout) < 20  # to read the shards that were begun would take 40


# Several folders


def test_folders_packed_side_by_side_are_read_as_one(packed_digits: Path, tmp_path: Path, caplog) -> None:
    parts = []
    for number in range(2):
        data = datamodule(compose())
        for name, part in data.sets.items():
            data.sets[name] = part.subset(np.arange(number, len(part), 2))
        parts.append(str(tmp_path / f"part{number}"))
        pack(data, Path(parts[-1]), 0.05)
    joined, whole = Shards(parts, batch_size=50), digits(packed_digits)
    joined.setup()
    assert not caplog.messages
    assert joined.classes == whole.classes
    assert torch.equal(joined.class_counts(), whole.class_counts())
    for name in ("val", "test"):
        assert sorted(joined.sets[name].names) == sorted(whole.sets[name].names)
    images: list[list[tuple[bytes, int]]] = []
    for data in (joined, whole):
        pairs = ((b.images[i], b.labels[i]) for b in data.train_dataloader() for i in range(len(b.ids)))
        images.append(sorted((image.numpy().tobytes(), int(label)) for image, label in pairs))
    assert len(images[0]) == 1294
    assert images[0] == images[1]


def test_folders_of_lines_join_their_characters_and_what_is_lost(packed_lines: Path, tmp_path: Path, caplog) -> None:
    data = lines_data(tmp_path / "lines")
    data.sets["train"].texts[:] = [text.replace("ligne", "LIGNE") for text in data.sets["train"].texts]
    pack(data, tmp_path / "capitals", 0.1)
    caplog.clear()
    joined = LineShards([str(packed_lines), str(tmp_path / "capitals")])
    joined.setup()
    assert {"l", "L"} <= set(joined.classes)
    assert [len(joined.sets[name]) for name in ("train", "val", "test")] == [120, 14, 16]
    assert len(joined.sets["val"].lost) == 2
    assert sum("7 names occur more than once in data.path, first " in message for message in caplog.messages) == 1
    hold = f"{packed_lines}/val-000000.tar and {tmp_path}/capitals/val-000000.tar hold the same 7 items, which count"
    assert sum(hold in message for message in caplog.messages) == 1


def test_folders_that_do_not_belong_together_are_told(packed_digits: Path, packed_lines: Path, tmp_path: Path) -> None:
    for name, overrides, says in (
        ("size", ["data.preprocess.size=32"], "preprocess.size=28 and preprocess.size=32"),
        ("few", ["data.only=[1,2,3]"], "classes=0 1 2 3 4 5 6 7 8 9 and classes=1 2 3"),
    ):
        pack(datamodule(compose(overrides=overrides)), tmp_path / name, 0.5)
        with pytest.raises(HwrError, match=f"{packed_digits} and {tmp_path / name} do not belong together.*{says}"):
            Shards([str(packed_digits), str(tmp_path / name)])
    with pytest.raises(HwrError, match="shards of lines, not of characters"):
        Shards([str(packed_digits), str(packed_lines)])
    with pytest.raises(HwrError, match=r"data.path=\[\]: name one folder at least"):
        Shards([])


# Figures


def test_the_same_figures_as_from_memory(trained: Path, packed_digits: Path, call: Run, tmp_path: Path) -> None:
    found = []
    for name, more in {"memory": (), "shards": ("data=shards", f"data.path={packed_digits}")}.items():
        done = call("eval", f"run={trained}", f"output={tmp_path / name}", *more)
        assert done.returncode == 0, done.stderr
        figures = json.loads((tmp_path / name / "metrics.json").read_text())
        found.append({key: value for key, value in figures.items() if not key.startswith("ms_")})
    assert found[0] == pytest.approx(found[1], abs=1e-6)


@pytest.mark.slow
def test_a_model_of_lines_has_the_same_figures_as_from_memory(line_run: Path, call: Run, tmp_path: Path) -> None:
    data = yaml.safe_load((line_run / "config.yaml").read_text())["data"]
    more = [f"data.path={data['path']}", "data.preprocess.height=32", "data.preprocess.deskew=false"]
    done = call("pack", "experiment=tsv_crnn", *more, f"out={tmp_path / 'shards'}", "shard_mb=0.05")
    assert done.returncode == 0, done.stderr
    found = []
    for name, source in {"memory": (), "shards": ("data=line_shards", f"data.path={tmp_path / 'shards'}")}.items():
        done = call("eval", f"run={line_run}", f"output={tmp_path / name}", *source)
        assert done.returncode == 0, done.stderr
        figures = json.loads((tmp_path / name / "metrics.json").read_text())
        found.append({key: value for key, value in figures.items() if not key.startswith("ms_")})
    assert found[0] == pytest.approx(found[1], abs=1e-5)


QUICK = ["network=lenet_16_32", "trainer.precision=32-true", "trainer.accelerator=cpu", "callbacks.gallery=null"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_goes_on_from_the_end_of_an_epoch_as_if_unbroken(
    workers: int, packed_digits: Path, tmp_path: Path
) -> None:
    source = ["data=shards", f"data.path={packed_digits}", f"data.workers={workers}", *QUICK]
    settings = [*source, "trainer.max_epochs=3", "callbacks.periodic.every_n_epochs=1"]
    whole = fit(compose(overrides=settings, run_dir=tmp_path / "whole"))
    first = min(whole.run_dir.glob("checkpoints/epoch*.ckpt"))
    resumed = fit(compose(overrides=[*settings, f"ckpt_path='{first}'"], run_dir=tmp_path / "resumed"))
    assert resumed.metrics["test/loss"] == whole.metrics["test/loss"]
    ours, theirs = (run.system.network.state_dict() for run in (resumed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_two_processes_train_from_shards(packed_digits: Path, hwr: Run, tmp_path: Path) -> None:
    source = ["data=shards", f"data.path={packed_digits}", "data.workers=2", "trainer.max_epochs=2", *QUICK]
    done = hwr("train", *source, "trainer.devices=2", "trainer.strategy=ddp", "data.batch_size=32")
    assert done.returncode == 0, done.stderr
    (metrics,) = (tmp_path / "outputs").rglob("metrics.json")
    found = json.loads(metrics.read_text())
    assert found["test/samples"] == 359
    assert found["test/accuracy"] > 0.6


# Bad input


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_shard_stops_training_with_its_name(copied: Path, call: Run, workers: int) -> None:
    damage(copied / FIRST)
    done = call(
        "train", "data=shards", f"data.path={copied}", f"data.workers={workers}", "trainer.max_epochs=1", *QUICK
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith(f"hwr.train: error: {copied / FIRST}: this shard is damaged (its SHA-256 is not")
    assert "data.bad_shards=skip" in done.stderr


def test_bad_training_shards_are_skipped_if_so_wished(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    damage(copied / FIRST)
    (copied / "train-000003.tar").unlink()
    data = digits(copied, bad_shards="skip")
    assert [message.split(": ")[0] for message in caplog.messages] == [
        str(copied / name) for name in (FIRST, "train-000003.tar")
    ]
    assert len(data.sets["train"]) == 1294 - 63 - 64
    found = [item for batch in read(data) for item in batch]
    assert sorted(found) == list(range(len(data.sets["train"])))


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_bad_shard_of_an_evaluation_is_never_skipped(copied: Path, split: str) -> None:
    damage(copied / f"{split}-000000.tar")
    with pytest.raises(HwrError, match=f"{split}-000000.tar: this shard is damaged.*an evaluation drops nothing"):
        digits(copied, bad_shards="skip")


def test_missing_and_short_shards_are_noticed_before_training(copied: Path) -> None:
    file = copied / FIRST
    file.write_bytes(file.read_bytes()[:-512])
    with pytest.raises(HwrError, match=r"train-000000.tar: this shard is damaged \([\d,]+ bytes, index.jsonl says"):
        digits(copied)
    file.unlink()
    with pytest.raises(HwrError, match=r"train-000000.tar: this shard is missing"):
        digits(copied)
    for shard in copied.glob("train-*"):
        shard.unlink()
    with pytest.raises(HwrError, match="none of 21 training shards can be used"):
        digits(copied, bad_shards="skip")


def test_an_index_that_cannot_be_read_is_told(copied: Path, packed_lines: Path, tmp_path: Path) -> None:
    index = copied / INDEX
    text = index.read_text(encoding="utf-8")
    rows = text.splitlines(keepends=True)
    newer = sealed([rows[0].replace('"version": 1', '"version": 2'), *rows[1:-1]])
    for content, says in {
        text[:-10]: "cut short or damaged",
        "".join(rows[:-2]): "cut short or damaged",
        "": "cut short or damaged",
        "[1, 2]\n": "cut short or damaged",
        text.replace('"items": 63', '"items": 62', 1): "cut short or damaged",
        '{"a": 1}\n': "cut short or damaged",
        newer: "version 2 of the format, and this hwr reads 1",
    }.items():
        index.write_text(content, encoding="utf-8")
        with pytest.raises(HwrError, match=f"{INDEX}: .*{says}"):
            digits(copied)
    index.write_bytes(b"\xff\xfe")
    with pytest.raises(HwrError, match="cut short or damaged"):
        digits(copied)
    index.unlink()
    with pytest.raises(HwrError, match=f"no {INDEX} there"):
        digits(copied)
    with pytest.raises(HwrError, match="shards of lines, not of characters; read them with data=line_shards"):
        digits(packed_lines)
    with pytest.raises(HwrError, match=r"nowhere: no index\.jsonl there"):
        digits(tmp_path / "nowhere")


def test_settings_that_the_shards_do_not_fit_are_told(packed_digits: Path, packed_lines: Path) -> None:
    with pytest.raises(HwrError, match=r"packed with preprocess.size=28, and 32 is wanted; pack again"):
        digits(packed_digits, preprocess={"size": 32})
    digits(packed_digits, preprocess={"mean": 0.5})
    with pytest.raises(HwrError, match=r"packed with preprocess\.deskew=True"):
        lines(packed_lines, preprocess={"deskew": False})
    with pytest.raises(HwrError, match=r"data.bad_shards must be error or skip, not 'maybe'"):
        digits(packed_digits, bad_shards="maybe")
    with pytest.raises(HwrError, match=r"data.workers must be a whole number from 0, not -1"):
        digits(packed_digits, workers=-1)
    with pytest.raises(HwrError, match="2000 devices cannot share 1294 training items"):
        digits(packed_digits).order("train", 0, 2000)


def test_a_start_that_needs_other_images_than_the_shards_have_is_not_compared(
    packed_digits: Path, trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = tmp_path / "small"
    pack(datamodule(compose(overrides=["data.preprocess.size=20", "data.preprocess.fit=16"])), small, 0.2)
    start = shutil.copytree(trained / "bundle", tmp_path / "start")
    settings = ["experiment=finetune_full", f"init_from={start}", "network=lenet_16_32", "init_mismatch=fresh"]
    settings += ["data=shards", "trainer.max_epochs=1", "trainer.accelerator=cpu", "test=false"]
    found = fit(compose("train", [*settings, f"data.path={small}"], tmp_path / "other"))
    assert "val/accuracy" in found.metrics
    assert found.adaptation is None
    assert "packed with preprocess.size=20, and 28 is wanted" in caplog.text
    means = "+data.preprocess.mean=0.4"  # which shards leave open
    assert fit(compose("train", [*settings, f"data.path={packed_digits}", means], tmp_path / "same")).adaptation


def test_what_shards_cannot_do_is_told(packed_digits: Path, packed_lines: Path, trained: Path, call: Run) -> None:
    source = ("data=shards", f"data.path={packed_digits}")
    for command, arguments, says in (
        ("eval", (f"run={trained}", "split=train"), "training items in shards are not judged"),
        ("audit", ("folds=2",), "training items in shards are not audited"),
        ("train", ("init_from=mnist", "data@old_data=digits", "replay=0.5"), "items in shards are not mixed"),
    ):
        done = call(command, *source, *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert says in done.stderr
    lacking = "the charset lacks .*; add to the charset, or leave such lines out when packing"
    cfg = compose(overrides=["experiment=tsv_crnn", "data=line_shards", f"data.path={packed_lines}", "charset=digits"])
    with pytest.raises(HwrError, match=lacking):
        datamodule(cfg)
    with pytest.raises(HwrError, match="shards are read as they are"):
        digits(packed_digits).restrict([1, 2])
