"""``python -m benchmarks.few_labels [key=value ...]``: a model of MNIST 0 to 4 learns 5 to 9 from ten labels each.

Beside it the same network learns the same labels from scratch, in the same way but with one learning rate for all its
layers. All was chosen on validation; test is scored by the runs that this command makes.
"""

from __future__ import annotations

import sys
from statistics import median
from time import perf_counter

from benchmarks.common import fit, machine

DRAWS = 5
START = ["data.only=[0,1,2,3,4]", "data.turned=true", "augment=medium", "data.batch_size=256"]
START += ["callbacks.ema.decay=0.99", "trainer.max_epochs=6", "test=false"]
FEW = ["data=mnist", "data.only=[5,6,7,8,9]", "data.labels=50", "callbacks.gallery=null"]
FEW += ["trainer.check_val_every_n_epoch=100"]  # that is once, at the end: there are far more images than labels
SCRATCH = ["init_from=null", "network=cnn", "finetune=null"]


def errors(*overrides: str) -> tuple[float, float, float]:
    """Of one run: on validation, on test, and its seconds from the digits to the figures."""
    start = perf_counter()
    m = fit("experiment=finetune_full", *FEW, *overrides).metrics
    return 1 - m["val/accuracy"], 1 - m["test/accuracy"], perf_counter() - start


def main() -> None:
    """One line a draw of labels, then medians."""
    overrides = sys.argv[1:]
    print(machine(), flush=True)
    old = fit("experiment=mnist_cnn", *START).run_dir
    rows = []
    for draw in range(1, DRAWS + 1):
        drawn = [f"data.labels_seed={draw}", f"seed={draw}", *overrides]
        tuned = errors(f"init_from={old}", *drawn)
        scratch = errors(*SCRATCH, *drawn)
        rows.append((*tuned, *scratch))
        print(
            f"draw {draw}: fine-tuned {tuned[0]:.2%} of validation wrong (test {tuned[1]:.2%}, {tuned[2]:.0f} s), "
            f"from scratch {scratch[0]:.2%} (test {scratch[1]:.2%})",
            flush=True,
        )
    val, test, seconds, other_val, other_test, _ = (median(column) for column in zip(*rows, strict=True))
    print(
        f"median of {DRAWS}: fine-tuned {val:.2%} (test {test:.2%}), "
        f"from scratch {other_val:.2%} (test {other_test:.2%}), "
        f"ratio {val / other_val:.2f} (test {test / other_test:.2f}); {seconds:.0f} s from digits to figures"
    )


if __name__ == "__main__":
    main()
