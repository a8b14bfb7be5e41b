"""What is installed works without the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    line = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(line, text=True, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob("hwr-*.whl")
    return file


def files(folder: Path) -> set[str]:
    """All files below a folder of the repository, but what Python makes of them."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in found if "__pycache__" not in path.parts}


def test_wheel_holds_everything(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        inside = set(content.namelist())
        (scripts,) = [content.read(name).decode() for name in inside if name.endswith("entry_points.txt")]
    assert {f"hwr/{name}" for name in files(ROOT / "hwr")} <= inside  # modules, and the models that are shipped
    assert {f"hwr/conf/{name}" for name in files(ROOT / "conf")} <= inside
    assert not [name for name in inside if not name.startswith(("hwr/", "hwr-"))]
    for command in ("train", "eval", "predict"):
        assert f"hwr-{command} = hwr.{command}:main" in scripts
    assert wheel.stat().st_size < 10e6


def test_installed_script_runs_anywhere(wheel: Path, tmp_path: Path) -> None:
    """Installed beside the dependencies of this environment, the script finds its configuration and trains."""
    site, away = tmp_path / "site", tmp_path / "away"
    away.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*install, str(wheel)], check=True, timeout=120)
    env = {**os.environ, "PYTHONPATH": str(site)}
    line = [str(site / "bin" / "hwr-train"), "debug=fast", "network=tiny", "trainer.precision=32-true"]
    done = subprocess.run(line, cwd=away, env=env, text=True, capture_output=True, timeout=200)
    assert done.returncode == 0, done.stderr
    (metrics,) = away.rglob("metrics.json")
    assert json.loads(metrics.read_text())["test/samples"] == 359
    where = [sys.executable, "-c", "import hwr, hwr.config; print(hwr.__file__, hwr.config.CONF_DIR)"]
    module, conf = subprocess.run(where, cwd=away, env=env, text=True, capture_output=True, check=True).stdout.split()
    assert Path(module).parent == site / "hwr"
    assert Path(conf) == site / "hwr" / "conf"
