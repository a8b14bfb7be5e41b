"""Where the configuration lives, how commands read it, and how a mistake in it is told.

Nothing heavy is imported here: ``python -m hwr.train --help`` only needs Hydra.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from hwr import ranks
from hwr.errors import HwrError, Interrupted

_PACKAGE = Path(__file__).resolve().parent
RUNS = ("train", "curve", "audit")  # commands that write a run directory
CONF_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
PATH_KEYS = {
    "run",
    "model",
    "images",
    "pages",
    "text",
    "decoder.lexicon",
    "decoder.lm",
    "out",
    "output",
    "save_seen",
    "ckpt_path",
    "init_from",
    "charset.file",
    "data.corrections",
    "data.fonts",
    "data.path",
    "data.pseudo_labels",
    "data.root",
    "data.text",
    "distill.teacher",
    "hydra.run.dir",
    "old_data.path",
    "old_data.root",
    "run_dir",
}
TEXT_KEYS = {"decoder.regex", "decoder.separators"}  # whatever characters they are made of


def slug(overrides: str | None) -> str:
    """Makes Hydra's ``override_dirname`` a file name of at most 100 characters that Hydra can read back."""
    text = re.sub(r"[^\w.-]+", "-", (overrides or "").replace(",", "_")).strip("-._")
    return text if len(text) <= 100 else f"{text[:91]}-{zlib.crc32(text.encode()):08x}"


def run_dir(root: str, name: str, overrides: str, ckpt_path: str | None) -> str:
    """Names a new run directory, or with ``ckpt_path=last`` the newest one of the same name and overrides."""
    tail = "_".join(part for part in (name, slug(overrides)) if part)
    if ckpt_path == "last":
        found = [
            p.parents[1]
            for p in Path(root).glob(f"*/*_{tail}/checkpoints/last.ckpt")
            if p.parents[1].name.partition("_")[2] == tail
        ]
        if found:
            return str(max(found, key=lambda p: (p.parent.name, p.name)))
    now = datetime.now()
    job = ranks.job()  # its processes do not all begin in the same second
    return f"{root}/{now:%Y-%m-%d}/{f'{now:%H-%M-%S}' if job is None else job}_{tail}"


def required(key: str) -> str:
    """Says that a key must be given, where ``???`` cannot: it does not take the place of another value."""
    raise HwrError(f"{key} must be given: add {key}=VALUE")


def job_name(number: int | str, overrides: str) -> str:
    """Names the directory of one job of a multirun."""
    return "_".join(part for part in (str(number), slug(overrides)) if part)


def sweep_name(overrides: Sequence[str]) -> str:
    """Names a sweep after its command, without what may change when it goes on."""
    kept = [word for word in overrides if not word.startswith(("sweep.trials=", "sweep.timeout="))]
    return slug(",".join(word.removeprefix("experiment=") for word in kept)) or "sweep"


OmegaConf.register_new_resolver("hwr.run_dir", run_dir, use_cache=True, replace=True)
OmegaConf.register_new_resolver("hwr.job_name", job_name, replace=True)
OmegaConf.register_new_resolver("hwr.sweep_name", sweep_name, replace=True)
OmegaConf.register_new_resolver("hwr.nodes", ranks.nodes, replace=True)
OmegaConf.register_new_resolver("hwr.node_devices", ranks.node_devices, replace=True)
OmegaConf.register_new_resolver("hwr.required", required, replace=True)
OmegaConf.register_new_resolver("hwr.folder_name", lambda path: Path(path).name, replace=True)


def compose(config_name: str = "train", overrides: Sequence[str] = (), run_dir: str | Path | None = None) -> DictConfig:
    """Composes a configuration in a test, a notebook or a script.

    Args:
        config_name: The root: ``train``, ``eval`` or ``predict``.
        overrides: What one would type on the command line.
        run_dir: Where a training run writes (a command line run gets a dated directory instead).

    Raises:
        HwrError: If a key, an experiment or a value is unknown.
    """
    more = [] if run_dir is None else [f"run_dir='{run_dir}'"]
    try:
        cfg = _composed(config_name, [*overrides, *more])
    except (HydraException, OmegaConfBaseException) as error:
        raise HwrError(explain(error, config_name, overrides)) from error
    check_types(cfg, config_name, overrides)
    return cfg


def _composed(config_name: str, overrides: Sequence[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return hydra.compose(config_name, without_nulls(overrides))


def check_types(cfg: DictConfig, config_name: str, overrides: Sequence[str]) -> None:
    """Raises :class:`HwrError` where an override puts a word in the place of a number."""
    words = {}
    for override in overrides:
        key = override.partition("=")[0]
        value = OmegaConf.select(cfg, key) if re.fullmatch(r"[\w.]+", key) else None
        if isinstance(value, str) and value != "auto":
            words[key] = override  # the last one counts
    if not words:
        return
    others = _composed(config_name, [o for o in overrides if o.partition("=")[0] not in words])
    for key, override in words.items():
        default = OmegaConf.select(others, key, throw_on_resolution_failure=False)
        if isinstance(default, int | float):
            raise HwrError(f"{override}: a number is needed, such as {default}")


def command(config_name: str, run: Callable[[DictConfig], None]) -> Callable[[], None]:
    """Turns ``run(cfg)`` into a command that Hydra configures; a user's mistake becomes one line and status 1."""

    def task(cfg: DictConfig) -> None:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            run(cfg)  # an error ends this trial; the sweep tells it and goes on with the others
        else:
            with _one_line(config_name):
                overrides: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
                check_types(cfg, config_name, [*own_sources(HydraConfig.get()), *overrides])
                run(cfg)

    def main() -> None:
        sys.argv[1:] = without_nulls(one_directory(config_name, quote_paths(sys.argv[1:])))
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors over instead of printing a page
        with _one_line(config_name):
            if _multirun(sys.argv[1:]):
                from hwr.sweeps import plugins

                plugins.register()
            hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=config_name)(task)()

    return main


def own_sources(hydra: Any) -> list[str]:
    """The override by which another composition finds the user's own configuration, if ``--config-dir`` was given."""
    found = [f"'file://{s.path}'" for s in hydra.runtime.config_sources if s.provider.endswith("command-line")]
    return [f"hydra.searchpath=[{','.join(found)}]"] if found else []


def without_nulls(arguments: Sequence[str]) -> list[str]:
    """Writes ``network=null`` as Hydra takes it where ``network`` is a group of options: ``~network``."""

    def group(argument: str) -> str:
        name = argument.removesuffix("=null")
        folder = name.partition("@")[0]
        return f"~{name}" if name != argument and folder.isidentifier() and (CONF_DIR / folder).is_dir() else argument

    return list(map(group, arguments))


def one_directory(config_name: str, arguments: Sequence[str]) -> list[str]:
    """Has Hydra, too, write into ``run_dir=X`` of what trains, and not into a new directory beside it."""
    if config_name not in RUNS or _multirun(arguments) or any(a.startswith("hydra.run.dir=") for a in arguments):
        return list(arguments)
    return [f"hydra.{a.replace('_', '.', 1)}" if a.startswith("run_dir=") else a for a in arguments]


def quote_paths(arguments: Sequence[str]) -> list[str]:
    """Quotes the values of keys that hold a path, so that ``images=scan (1).png`` is read as the shell meant it."""
    keys = {"hydra.sweep.dir"} if _multirun(arguments) else PATH_KEYS  # in a sweep a comma separates values

    def quoted(argument: str) -> str:
        key, _, value = argument.partition("=")
        if key in TEXT_KEYS and keys is PATH_KEYS and value != "null":
            return argument if value[:1] in ("'", '"') else f"{key}='" + value.replace("'", "\\'") + "'"
        plain = re.fullmatch(r"[\w./~*?%@-]*", value, re.ASCII) or value[0] in "'\"[" or "${" in value
        return argument if key not in keys or plain else f"{key}='" + value.replace("'", "\\'") + "'"

    return [quoted(argument) for argument in arguments]


def _multirun(arguments: Sequence[str]) -> bool:
    return bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments))


@contextmanager
def _one_line(config_name: str) -> Iterator[None]:
    try:
        yield
    except HwrError as error:
        if isinstance(error, Interrupted) and ranks.rank():  # as process 0 is, which tells it
            ranks.wait_for_the_first()
            raise SystemExit(1) from None
        _fail(config_name, str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _fail(config_name, explain(error, config_name, [a for a in sys.argv[1:] if not a.startswith("-")]))
    except BrokenPipeError:  # the reader of our output, `head` say, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:
        again = "go on with ckpt_path=last (without it, if no epoch was finished)"
        mend = {
            errno.ENOSPC: f"the disk is full; free some space, then {again}",
            errno.EDQUOT: f"the disk quota is used up; free some space, then {again}",
            errno.EFBIG: f"files may not grow so large here (ulimit -f); allow it, then {again}",
            errno.EROFS: "cannot be written; choose another place with hydra.run.dir=FOLDER",
            errno.EACCES: "permission denied; where runs go, another place is chosen with hydra.run.dir=FOLDER",
            errno.ENOENT: "there is no such file or folder, and none can be made",
            errno.EISDIR: "a folder stands where a file is needed",
            errno.EEXIST: "a file stands where a folder is needed",
            errno.ENOTDIR: "a file stands where a folder is needed",
            errno.ENAMETOOLONG: "a longer name than a file can have; is it a path?",
        }
        if error.errno not in mend:
            raise
        _fail(config_name, f"{error.filename or 'writing'}: {mend[error.errno]}")


def _fail(config_name: str, message: str) -> None:
    ranks.wait_for_the_first()
    sys.stdout.flush()
    print(f"hwr.{config_name}: error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(1)


def explain(error: Exception, config_name: str, overrides: Sequence[str]) -> str:
    """Says in one line what Hydra says in many, with the nearest known name."""
    text = str(error).removeprefix("HwrError raised while resolving interpolation: ")
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        group, name = match.groups()
        known = choices(group)
        return f"{group}={name}: there is no such {group}{nearest(name, known)}; known: {', '.join(known)}"
    if match := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(match[1], config_name, overrides)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} must be given: add {error.full_key}=VALUE"
    if isinstance(error, OverrideParseException) and "empty choice" in text:
        return f"{error.override}: nothing to choose from; list some values"
    if isinstance(error, OverrideParseException) and "=" in error.override:
        return f"cannot read {error.override}: quote the value, as in 'key=\"value, with (signs)\"'"
    if isinstance(error, HydraException) and (words := [o for o in overrides if "=" not in o and o[:1] != "~"]):
        return f"{words[0]}: expected key=value"
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__


def choices(group: str) -> list[str]:
    """The names that a group of ``conf/`` can be set to; others build on files that begin with an underscore."""
    return sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml") if not path.name.startswith("_"))


def _unknown_key(key: str, config_name: str, overrides: Sequence[str]) -> str:
    key = key.lstrip("+~").split("@")[0]
    others = [o for o in overrides if not o.lstrip("+~").startswith(f"{key}=")]
    try:
        cfg: Any = compose(config_name, others)
        known = [
            *_keys(OmegaConf.to_container(cfg, resolve=False)),
            *(p.name for p in CONF_DIR.iterdir() if p.is_dir()),
        ]
    except HwrError:
        known = []
    group, _, name = key.partition(".")
    options = sorted((CONF_DIR / group).glob("*.yaml")) if group != "data" else []
    if 0 < len(owners := [p.stem for p in options if name in OmegaConf.load(p)]) < 5:
        return f"{key} is a key of {group}={' or '.join(owners)}; add that as well"
    parent = key.rpartition(".")[0]
    siblings = [k for k in known if k.rpartition(".")[0] == parent]
    if parent and key in known:
        return f"{key} has no such entry; add one with +{key}=VALUE"
    hint = nearest(key, known)
    return f"{key} is not a known key{hint}" + ("" if hint or not siblings else f"; known here: {', '.join(siblings)}")


def nearest(name: str, known: Sequence[str]) -> str:
    """Asks whether the known name that is most like it was meant, or those that end like it; or nothing."""
    alike = [k for k in known if _last(k) == _last(name)][:3]
    close = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    close = [k for k in close if _like(_last(name), _last(k))]
    near = alike if "." not in name and alike else close[:1] or alike[:1]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _like(one: str, other: str) -> bool:
    """Whether half of them is the same, or one has all letters of the other in their order (``lr``)."""
    few, many = sorted((one, other), key=len)
    letters = iter(many)
    return difflib.SequenceMatcher(None, one, other).ratio() >= 0.5 or all(letter in letters for letter in few)


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _keys(value, f"{prefix}{key}.")
