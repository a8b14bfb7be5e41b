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
TARGETS = sorted(set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)`", TEXT, re.M)))


@pytest.mark.parametrize(("command", "line"), COMMANDS, ids=" ".join)
def test_the_keys_of_a_documented_command_are_known(command: str, line: str) -> None:
    words = [word for word in shlex.split(line) if "=" in word]
    lowest = [re.sub(r"=.*interval\(([^,]+),.*", r"=\1", word) for word in words]  # of an interval, its start
    single = [re.sub(r"=([^\[{]*?),.*", r"=\1", word) for word in lowest]  # of a sweep, the first
    compose(command, single)


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
