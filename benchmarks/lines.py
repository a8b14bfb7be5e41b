"""``python -m benchmarks.lines MODEL DATA``: how fast lines are learnt and read.

MODEL is a run, bundle or shipped model of lines; DATA a folder with ``train.tsv`` and ``val.tsv``. Training is timed
with the network of ``conf/network/crnn.yaml``, on real lines in real batches; reading goes from image files to text.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from benchmarks.common import fit, machine, middle

RUNS = 3


def seconds(work: Callable[[], object], runs: int = RUNS) -> float:
    """Median time, after one run to warm up."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)


def training(data: str, precision: str) -> float:
    """Training lines per second of 40 steps, data path and augmentation included."""
    result = fit(
        "experiment=tsv_crnn", f"data.path={data}", f"trainer.precision={precision}", "trainer.max_epochs=2",
        "+trainer.limit_train_batches=40", "+trainer.limit_val_batches=1", "test=false", "callbacks.gallery=null",
    )  # fmt: skip
    return float(result.trainer.callback_metrics["system/samples_per_s"])


def data_share(data: str) -> str:
    """Time of loading, padding and augmenting a batch beside that of a whole training step."""
    from hwr.config import compose
    from hwr.parts import datamodule

    module = datamodule(compose("train", ["experiment=tsv_crnn", f"data.path={data}"]))
    part = module.sets["train"]
    order = list(module.order("train", rank=0, world=1))[:20]

    def work() -> None:
        for positions in order:
            batch = part[positions]
            module.augment(module.preprocess.normalize(batch.images), batch.widths)

    lines = sum(len(positions) for positions in order)
    return f"{1000 * seconds(work) / lines:.2f} ms a line"


def kinds() -> None:
    """Which kinds of layers gain from bfloat16 here, forward and backward."""
    from omegaconf import OmegaConf

    from hwr.config import CONF_DIR
    from hwr.networks import build

    config = OmegaConf.to_container(OmegaConf.load(CONF_DIR / "network" / "crnn.yaml"))
    net = build(config, num_classes=100, height=64).train().to(memory_format=torch.channels_last)
    images = torch.rand(14, 1, 64, 1000).contiguous(memory_format=torch.channels_last)
    columns, lengths = torch.rand(14, 125, 256), torch.full((14,), 125)
    for name, part, inputs in (("convolutions", net.columns, (images,)), ("BiLSTM", net.rnn, (columns, lengths))):
        times = {}
        for half in (False, True):

            def work(part=part, inputs=inputs, half=half) -> None:
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    out = part(*inputs)
                out.float().sum().backward()

            times[half] = seconds(work)
        ratio = times[False] / times[True]
        print(f"{name}: float32 {times[False]:.3f} s, bfloat16 {times[True]:.3f} s, ratio {ratio:.2f}", flush=True)


def reading(model: str, data: str) -> None:
    """Lines per second from files to text: greedy, and with the beam search where the bundle has an n-gram model."""
    from hwr import bundle, decoders
    from hwr.recognizer import Recognizer

    paths = [Path(data) / row.split("\t")[0] for row in (Path(data) / "val.tsv").read_text().splitlines()[1:]]
    ways = {"greedy": decoders.greedy}
    if bundle.load(model).ngram is not None:
        ways["beam 10 and n-grams"] = decoders.beam
    for name, decoder in ways.items():
        for precision in ("32-true", "bf16-mixed"):
            recognizer = Recognizer.load(model, decoder=decoder, precision=precision)

            def read(recognizer=recognizer) -> None:
                list(recognizer.read_files(paths))

            pace = [len(paths) / seconds(read, 1) for _ in range(RUNS)]
            print(f"reading, {name}, {precision}: {middle(pace)} lines/s ({len(paths)} files)", flush=True)


def main() -> None:
    """Prints one line a figure."""
    model, data = sys.argv[1:3]
    print(f"{machine()}, {torch.get_num_threads()} threads")
    kinds()
    print(f"loading and augmenting: {data_share(data)}", flush=True)
    for precision in ("32-true", "bf16-mixed"):
        print(f"training, {precision}: {middle([training(data, precision) for _ in range(RUNS)])} lines/s", flush=True)
    reading(model, data)


if __name__ == "__main__":
    main()
