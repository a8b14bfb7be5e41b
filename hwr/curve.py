"""``python -m hwr.curve experiment=NAME init_from=MODEL [key=value ...]``: error against the number of labels.

Every number of labels is learnt by fine-tuning a model and from scratch, with several draws of the labels. Each run
has a directory of its own, and what is finished is never done again.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from hwr.config import command, compose, own_sources
from hwr.errors import HwrError
from hwr.terminal import duration, told_elsewhere

if TYPE_CHECKING:
    from hwr.learning_curve import Curve, Point
    from hwr.parts import DataModule

OWN_KEYS = ("labels", "seeds", "scratch", "split", "target", "run_dir")  # of a curve, not of its runs
SET_HERE = {"seed": "seeds", "data.labels": "labels", "data.labels_seed": "seeds", "ckpt_path": "", "test": "split"}
NEEDS_START = ["init_from", "init_mismatch", "finetune", "charset.on_change", "old_data", "replay", "distill"]
NEEDS_START += ["system.l2_sp", "system.layer_decay", "callbacks.freeze"]


class Run(NamedTuple):
    """One training.

    Attributes:
        arm: ``finetune`` or ``scratch``.
        labels: To train on.
        seed: Of their draw and of everything random.
        cfg: As composed from ``conf/train.yaml``.
    """

    arm: str
    labels: int
    seed: int
    cfg: DictConfig

    @property
    def folder(self) -> Path:
        """Its run directory."""
        return Path(self.cfg.run_dir)

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.arm}, {self.labels:,} labels, seed {self.seed}"

    @property
    def items(self) -> int:
        """That it learns from at most, over all epochs."""
        from hwr.parts import by_labels

        return self.labels * (by_labels(self.cfg, self.labels).trainer.max_epochs or 1)


def run(cfg: DictConfig) -> None:
    """Trains and scores what is missing of the curve, and writes what came of it after every run."""
    from hwr import learning_curve
    from hwr.parts import datamodule, replayed

    check(cfg)
    arms = overrides_of_arms(cfg, typed())
    base = {arm: compose("train", [*overrides, "test=false"]) for arm, overrides in arms.items()}
    data, out = datamodule(base["finetune"]), Path(cfg.run_dir)
    if cfg.split not in data.sets:
        raise HwrError(f"split={cfg.split}: there are {', '.join(data.sets)}")
    own = [part.fingerprint() for part in data.sets.values()] if not data.streamed else []
    contents = {"finetune": [*own, *replayed(base["finetune"], data)], "scratch": own}
    runs = plan(cfg, base, len(data.labelled()), contents)
    curve = learning_curve.Curve(judge_start(cfg, data), cfg.split, cfg.target)
    del data
    before = {one for one in runs if scores_of(one, cfg.split).is_file()}
    if before:
        print(f"{len(before)} of {len(runs)} runs were finished before", flush=True)
    for number, one in enumerate(runs, start=1):
        curve = curve.add(finish(one, cfg.split))
        if one not in before:
            learning_curve.write(curve, out)
            print(progress(curve, runs, number), flush=True)
    learning_curve.write(curve, out)
    learning_curve.report(curve, out)


def check(cfg: DictConfig) -> None:
    """Raises :class:`HwrError` for settings that no curve can be made of."""
    labels, seeds = cfg.labels, cfg.seeds
    if not OmegaConf.is_list(labels) or not labels or not all(x == "all" or _whole(x, 0) for x in labels):
        raise HwrError(f"labels={labels}: a list of whole numbers is needed, or all, such as labels=[50,200,all]")
    if small := [x for x in labels if x in (0, 1)]:
        raise HwrError(f"labels: {small[0]} cannot be trained on; the start model, 0 labels, is judged in any case")
    if OmegaConf.is_dict(seeds) and (lacking := [x for x in labels if x not in seeds and str(x) not in seeds]):
        raise HwrError(f"seeds: none for {lacking[0]} labels; give a number for each of labels, or one for all")
    if not all(_whole(x, 1) for x in (seeds.values() if OmegaConf.is_dict(seeds) else [seeds])):
        raise HwrError(f"seeds={seeds}: whole numbers from 1 are needed, one for all or {{50: 3, 200: 1}}")
    target = cfg.target
    if target is not None and (isinstance(target, bool | str) or not 0 < target < 1):
        raise HwrError(f"target={target}: an error between 0 and 1 is needed, such as 0.05 for 5 %")
    if cfg.init_from is None:
        raise HwrError("init_from must be given: a curve compares fine-tuning that model to training from scratch")
    if cfg.trainer.devices not in (1, "1"):
        raise HwrError("trainer.devices: a curve trains one model after the other on one device; leave it at 1")


def overrides_of_arms(cfg: DictConfig, typed: Sequence[str]) -> dict[str, list[str]]:
    """What ``hwr.train`` would be told for each arm; of several values for one key the last counts.

    Args:
        cfg: As composed from ``conf/curve.yaml``.
        typed: The command line.

    Raises:
        HwrError: If a key is given that a curve sets itself.
    """
    for override in typed:
        key = _key(override)
        if key in SET_HERE:
            instead = f"say {SET_HERE[key]}= instead" if SET_HERE[key] else "the same command goes on where it stopped"
            raise HwrError(f"{key}: a curve sets it for each of its runs; {instead}")
    common = [o for o in typed if _key(o) not in OWN_KEYS and not _key(o).startswith("hydra.")]
    own = shlex.split(cfg.scratch) if isinstance(cfg.scratch, str) else [str(o) for o in cfg.scratch]
    own = [o if "=" in o or o.startswith("~") else f"experiment={o}" for o in own]
    scratch = [o for o in common if not _below(_key(o), NEEDS_START)] + ["init_from=null", "~finetune", *own]
    return {"finetune": common, "scratch": list({_key(o): o for o in scratch}.values())}


def plan(
    cfg: DictConfig, base: Mapping[str, DictConfig], available: int, contents: Mapping[str, Sequence[str]]
) -> list[Run]:
    """All runs, the smallest numbers of labels first.

    Args:
        cfg: As composed from ``conf/curve.yaml``.
        base: For each arm, what its runs have in common, as composed from ``conf/train.yaml``.
        available: How many training labels there are.
        contents: For each arm, what tells its data from any other; with other data or another start all is done again.

    Raises:
        HwrError: If more labels are wanted, or there are none to choose from, or from scratch there is no network.
    """
    from hwr import transfer

    if "_target_" not in (base["scratch"].network or {}):
        raise HwrError("scratch: network=null is the start model's; name what starts from nothing: scratch=tsv_crnn")
    if lacking := [arm for arm, common in base.items() if "labels" not in common.data]:
        raise HwrError(f"data: the data of {lacking[0]} is made up as training goes on: no labels to choose from")
    models = [transfer.fingerprint(name) for name in (cfg.init_from, cfg.distill.teacher) if name is not None]
    facts = {"finetune": [*contents["finetune"], *models], "scratch": contents["scratch"]}
    runs = []
    for labels, wanted in sorted({available if x == "all" else x: x for x in cfg.labels}.items()):
        if labels > available:
            raise HwrError(f"labels={labels}: there are {available} training labels; give fewer, or all")
        seeds = cfg.seeds if isinstance(cfg.seeds, int) else cfg.seeds.get(wanted, cfg.seeds.get(str(wanted)))
        for seed in range(1, seeds + 1):
            for arm, common in base.items():
                one = common.copy()
                one.run_dir, one.seed, one.data.labels_seed = "", seed, seed
                one.data.labels = None if labels == available else labels
                digest = _digest(OmegaConf.to_yaml(one, resolve=True), facts[arm])
                one.run_dir = str(Path(cfg.run_dir) / f"{arm}_{labels}_seed{seed}_{digest}")
                runs.append(Run(arm, labels, seed, one))
    return runs


def judge_start(cfg: DictConfig, data: DataModule) -> tuple[Point, ...]:
    """Scores the start model as it is, with no labels of the new data, and prints one line about it.

    Args:
        cfg: As composed from ``conf/curve.yaml``.
        data: What a run that starts from it learns from.

    Returns:
        Nothing if it is bare weights.
    """
    from hwr import adaptation, transfer
    from hwr.data.lines.base import LineDataModule
    from hwr.learning_curve import START, Point

    model = transfer.find(cfg.init_from).model
    if model is None:
        print("start model: not to be judged before it is trained, as bare weights do not say what they read")
        return ()
    metric = "CER" if isinstance(data, LineDataModule) else "error"
    error, low, high = adaptation.score(model, data, cfg.split)
    print(f"start model: {metric} {error:.2%}", flush=True)
    return (Point(START, 0, None, error, low, high, None, cfg.init_from, metric),)


def finish(one: Run, split: str) -> Point:
    """Trains and scores one run, as far as that was not done before."""
    from hwr.experiment import fit
    from hwr.learning_curve import point

    log, scores = one.folder / "train.log", scores_of(one, split)
    try:
        if not (one.folder / "metrics.json").is_file():
            cfg = one.cfg.copy()
            cfg.ckpt_path = "last" if (one.folder / "checkpoints" / "last.ckpt").is_file() else None
            with told_elsewhere(log, one.title):
                fit(cfg)
        if not scores.is_file():
            with told_elsewhere(log, one.title):
                score(one, split)
    except KeyboardInterrupt:
        raise HwrError(f"{one.title}: interrupted; go on by running the same command again") from None
    except HwrError as error:
        raise HwrError(f"{one.title}: {error}") from error
    seconds = _read(one.folder / "metrics.json")["train_seconds"]
    return point(one.arm, one.labels, one.seed, _read(scores), seconds, one.folder.name)


def score(one: Run, split: str) -> None:
    """Writes the figures of a trained run on a split."""
    from hwr import bundle, experiment, parts
    from hwr.files import write_json

    model = bundle.load(one.folder)
    data = parts.data_of(model, str(one.folder))
    write_json(scores_of(one, split), experiment.score(model, data, split, one.cfg.trainer.accelerator))


def scores_of(one: Run, split: str) -> Path:
    """Where the figures of a run on a split are."""
    return one.folder / f"{split}.json"


def progress(curve: Curve, runs: Sequence[Run], number: int) -> str:
    """One line about the run that has just finished, and how long the others may take."""
    last, left = curve.points[-1], time_left(curve.points, runs, number)
    text = f"{number} of {len(runs)}: {runs[number - 1].title}: {last.metric} {last.error:.2%}"
    text += f" after {last.seconds:.0f} s" if last.seconds is not None else ""
    return text if number == len(runs) else f"{text}; about {duration(left)} left"


def time_left(points: Sequence[Point], runs: Sequence[Run], done: int) -> float:
    """Seconds that runs may take, if each takes what the nearest finished one took, or more if it has more to learn.

    Args:
        points: What the first of the runs have shown.
        runs: All of them.
        done: How many of them are finished.
    """
    items = {(one.arm, one.labels): one.items for one in runs}
    known = [(p.arm, items[p.arm, p.labels], p.seconds) for p in points if p.seconds is not None]
    total = 0.0
    for one in runs[done:]:
        wanted = items[one.arm, one.labels]
        nearest = min((arm != one.arm, abs(n - wanted)) for arm, n, _ in known)
        found = [(n, s) for arm, n, s in known if (arm != one.arm, abs(n - wanted)) == nearest]
        total += sum(s * max(1.0, wanted / n) for n, s in found) / len(found)
    return total


def typed() -> list[str]:
    """The command line, and where a user's own configuration lies."""
    hydra = HydraConfig.get()
    return [*own_sources(hydra), *hydra.overrides.task]


def _read(path: Path) -> dict[str, float]:
    try:
        found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise HwrError(f"{path}: damaged; remove {path.parent} and repeat the command") from None
    return found


def _digest(*facts: object) -> str:
    """Eight hexadecimal digits."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0].rpartition("@")[2]


def _below(key: str, keys: Sequence[str]) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in keys)


main = command("curve", run)

if __name__ == "__main__":
    main()
