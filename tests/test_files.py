"""Files are written whole or not at all."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hwr.files import new_directory, write_bytes, write_json


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def small_files() -> Iterator[None]:
    """No file may grow beyond 4 KiB: the kernel refuses the rest, as it does when a disk is full.

    Around as little as possible: pytest's own output may go to a file that is longer.
    """
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_write_bytes_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_bytes(path, b"old")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert everything(tmp_path) == ["a", "a/b", "a/b/file"]


def test_a_failing_write_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with small_files(), pytest.raises(OSError, match="File too large") as caught:
        write_bytes(path, bytes(10_000))
    assert caught.value.filename == str(path)  # not the temporary file, which nobody knows
    assert path.read_bytes() == b"old"
    assert everything(tmp_path) == ["file"]


def test_a_full_disk_keeps_the_old_content(full_disk: Path) -> None:
    path = full_disk / "file"
    write_bytes(path, b"old")
    with pytest.raises(OSError, match="No space left"):
        write_bytes(path, bytes(1_000_000))
    assert path.read_bytes() == b"old"
    assert everything(full_disk) == ["file"]


def test_json_keeps_letters_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "file", {"ä": 1})
    assert "ä" in (tmp_path / "file").read_text(encoding="utf-8")


def test_new_directory_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with new_directory(tmp_path / "folder") as folder:
            write_bytes(folder / name, b"")
    assert everything(tmp_path) == ["folder", "folder/new"]


def test_a_failing_new_directory_keeps_the_old_one(tmp_path: Path) -> None:
    with new_directory(tmp_path / "folder") as folder:
        write_bytes(folder / "old", b"")

    def fail() -> None:
        with new_directory(tmp_path / "folder") as folder:
            write_bytes(folder / "new", b"")
            write_bytes(folder / "large", bytes(10_000))

    with small_files(), pytest.raises(OSError, match="too large"):
        fail()
    assert everything(tmp_path) == ["folder", "folder/old"]


def test_a_killed_writer_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    code = f"""
import os, signal, hwr.files, pathlib
os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL)  # everything is written, nothing renamed
hwr.files.write_bytes(pathlib.Path({str(path)!r}), b"new")
"""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], env=env).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
