"""The datamodules of lines that come from files: for each format one, over its reader beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from hwr.data.lines import casia, iam, pages, tsv
from hwr.data.lines.base import LineDataModule
from hwr.data.lines.items import Lines
from hwr.errors import HwrError


class TSV(LineDataModule):
    """Images and transcripts of your own: a table, a folder of tables, or pairs of images and transcripts.

    Args:
        path: See :func:`hwr.data.lines.tsv.read_splits`.
        kwargs: See :class:`LineDataModule`.
    """

    def __init__(self, path: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = path

    def read(self) -> dict[str, Lines]:
        """See :func:`hwr.data.lines.tsv.read_splits`."""
        return tsv.read_splits(self.path)


class Pages(LineDataModule):
    r"""Lines of pages of your own, with ALTO or PAGE XML beside the images.

    Args:
        path: See :func:`hwr.data.lines.pages.read_splits`.
        straighten: Lay each line straight along its baseline.
        writer_pattern: Finds the writer in an XML's path, see :func:`hwr.data.lines.pages.read_pages`.
        kwargs: See :class:`LineDataModule`.
    """

    def __init__(self, path: str, straighten: bool = False, writer_pattern: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path, self.straighten, self.writer_pattern = path, straighten, writer_pattern

    def read(self) -> dict[str, Lines]:
        """See :func:`hwr.data.lines.pages.read_splits`."""
        return pages.read_splits(self.path, self.straighten, self.writer_pattern)


class IAM(LineDataModule):
    """IAM Handwriting Database: English lines or words by 657 writers (Marti and Bunke 2002).

    Args:
        root: Where data sets live: the database is in ``root/IAM``, see :func:`hwr.data.lines.iam.read`.
        level: ``lines`` or ``words``.
        lists: Folder with the id lists of a split, see :data:`hwr.data.lines.iam.SCHEMES`; None sets validation and
            test apart by writer.
        segmentation: See :func:`hwr.data.lines.iam.read`.
        kwargs: See :class:`LineDataModule`.
    """

    def __init__(
        self,
        root: str,
        level: iam.Level = "lines",
        lists: str | None = None,
        segmentation: Literal["all", "ok"] = "all",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if level not in get_args(iam.Level):
            raise HwrError(f"data.level must be lines or words, not {level!r}")
        if segmentation not in ("all", "ok"):
            raise HwrError(f"data.segmentation must be all or ok, not {segmentation!r}")
        self.root, self.level, self.lists, self.segmentation = Path(root) / "IAM", level, lists, segmentation

    def read(self) -> dict[str, Lines]:
        """Deals out what :func:`hwr.data.lines.iam.read` finds."""
        found = iam.read(self.root, self.level, segmentation=self.segmentation)
        if self.lists is None:
            return {"train": found}
        scheme, lists = iam.find_lists(self.lists)
        return iam.read_splits(found, lists, scheme=scheme)


class CASIA(LineDataModule):
    """CASIA-HWDB2.x: Chinese lines by 1,019 writers (Liu, Yin, Wang and Wang 2011).

    Args:
        root: Where data sets live: ``root/HWDB2`` holds ``HWDB2.0Train``, ``HWDB2.0Test`` and so on.
        kwargs: See :class:`LineDataModule`.
    """

    def __init__(self, root: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = Path(root) / "HWDB2"

    def read(self) -> dict[str, Lines]:
        """Reads the official split by writers."""
        return casia.read_splits(self.root)
