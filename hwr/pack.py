"""``python -m hwr.pack experiment=NAME out=FOLDER [key=value ...]``: writes a data set as shards, to be streamed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from hwr.config import command
from hwr.errors import HwrError

if TYPE_CHECKING:
    from hwr.data.shards.format import Shard


def run(cfg: DictConfig) -> None:
    """Packs as configured, or goes on with what was broken off, and says what came of it."""
    from hwr.data.lines.base import LineDataModule
    from hwr.data.shards.writer import pack
    from hwr.parts import datamodule

    if not isinstance(cfg.shard_mb, int | float) or not cfg.shard_mb > 0:
        raise HwrError(f"shard_mb={cfg.shard_mb}: a number above 0 is needed")
    cfg.augment = None
    data, out = datamodule(cfg), Path(cfg.out).expanduser()
    if data.streamed:
        raise HwrError(f"data.path={cfg.data.path}: these are shards already; pack the data that they were made of")
    if cfg.data.get("turned"):
        raise HwrError("data.turned=true: shards hold characters as they are; leave it out")
    shards = pack(data, out, cfg.shard_mb, OmegaConf.to_container(cfg.data, resolve=True))
    name = "line_shards" if isinstance(data, LineDataModule) else "shards"
    report(out, shards, ["python", "-m", "hwr.train", f"experiment={cfg.name}", f"data={name}", f"data.path={out}"])


def report(out: Path, shards: Sequence[Shard], following: Sequence[str]) -> None:
    """How much of each split was packed, where it is, and what to do next."""
    from rich.console import Console
    from rich.table import Table

    table = Table("split", "items", "shards", "MB")
    for split in dict.fromkeys(shard.split for shard in shards):
        some = [shard for shard in shards if shard.split == split]
        size = sum(shard.bytes for shard in some) / 1e6
        table.add_row(split, f"{sum(shard.items for shard in some):,}", f"{len(some):,}", f"{size:,.1f}")
    console = Console()
    console.print(f"{out}", soft_wrap=True, highlight=False, markup=False)
    console.print(table)
    console.print("Next:", style="bold")
    console.print(f"  {shlex.join(following)}", soft_wrap=True, highlight=False, markup=False)


main = command("pack", run)

if __name__ == "__main__":
    main()
