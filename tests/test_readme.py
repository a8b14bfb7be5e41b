"""Every command of the documentation exists, and its keys are known."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from hwr.config import compose

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
TEXT = "\n".join(document.read_text() for document in DOCUMENTS)
COMMANDS = sorted(set(re.findall(r"python -m hwr\.(\w+) ([^\n`#]+)", TEXT)))
ADDITIONS = re.findall(r"can be added to any of them:\n\n```\n(.*?)```", TEXT, re.S)[0].splitlines()
TARGETS = sorted(set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)`", TEXT, re.M)))


@pytest.mark.parametrize(("command", "line"), COMMANDS, ids=" ".join)
def test_the_keys_of_a_documented_command_are_known(command: str, line: str) -> None:
    words = [word for word in shlex.split(line) if "=" in word]
    lowest = [re.sub(r"=.*interval\(([^,]+),.*", r"=\1", word) for word in words]  # of an interval, its start
    single = [re.sub(r"=([^\[{]*?),.*", r"=\1", word) for word in lowest]  # of a sweep, the first
    compose(command, single)


@pytest.mark.parametrize("line", ADDITIONS)
def test_the_keys_that_can_be_added_are_known(line: str) -> None:
    keys, note = line.split("  #")
    base = ["experiment=finetune_hand", "init_from=copiste", "data.path=FOLDER"]
    cfg = compose("train", [*base, *re.findall(r"with (finetune=\w+)", note), *shlex.split(keys)])
    if "freeze" in line:
        assert cfg.callbacks.freeze.train == {0: ["head"], 3: ["rnn", "head"], 6: ["all"]}


@pytest.mark.parametrize("target", ["".join(pair) for pair in TARGETS])
def test_a_documented_target_is_in_the_makefile(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m (benchmarks\.\w+)", TEXT))))
def test_a_documented_benchmark_exists(module: str) -> None:
    assert (ROOT / f"{module.replace('.', '/')}.py").is_file()


def test_documented_files_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]
