"""``python -m benchmarks.soup OUT RUN RUN ...``: the mean of the weights of several runs as a run of its own.

Runs that began with one another lie in one valley of the loss, where the middle is often better than any of them (model
soups, Wortsman et al. 2022, arXiv:2203.05482). All weigh the same; what came of it is scored on validation.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch

from hwr import bundle
from hwr.errors import HwrError
from hwr.experiment import score
from hwr.parts import data_of


def main() -> None:
    """Prints the validation error of each run and of their mean."""
    out, runs = Path(sys.argv[1]), sys.argv[2:]
    models = [bundle.load(run) for run in runs]
    last = models[-1]
    shapes = [{name: each.shape for name, each in model.weights.items()} for model in models]
    if any(model.classes != last.classes for model in models) or shapes != [shapes[-1]] * len(models):
        raise HwrError("the runs have other characters or other networks: nothing to take the mean of")
    tensors = {name: torch.stack([model.weights[name] for model in models]) for name in last.weights}
    weights = {name: each.mean(0) if each.is_floating_point() else each[-1] for name, each in tensors.items()}
    mean = replace(last, weights=weights, ngram=None)
    data = data_of(mean, runs[-1])
    for name, model in [*zip(runs, models, strict=True), ("mean", mean)]:
        found = {key.replace("test/", "val/"): value for key, value in score(model, data, "val").items()}
        print(f"{name}: CER {found['val/cer']:.2%}, WER {found['val/wer']:.2%}", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(runs[-1]) / "config.yaml", out / "config.yaml")
    replace(mean, metrics={"parameters": last.metrics["parameters"], **found}).save(out / "bundle")


if __name__ == "__main__":
    main()
