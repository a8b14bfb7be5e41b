"""Convolutions, a bidirectional LSTM, and CTC: networks that read lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from hwr.networks.bilstm import BiLSTM
from hwr.networks.columns import ColumnNetwork, LineBackbone, LineStages
from hwr.networks.dropout import Dropout


class CRNN(ColumnNetwork):
    """Convolutions, a bidirectional LSTM over the columns, and a linear layer (Shi et al. 2017, arXiv:1507.05717).

    What a line is read as does not depend on the lines beside it in the batch: see :meth:`ColumnNetwork.columns`, and
    the LSTM stops at the true length.

    Args:
        num_classes: Outputs, with the blank (index 0).
        height: Of the images.
        stages: Settings of each :class:`hwr.networks.stages.Stage`, but for ``in_channels``; or another backbone.
        collapse: See :class:`ColumnNetwork`.
        width: Of the vector that enters the LSTM (after a linear layer); 0 leaves it as it is.
        hidden: Units of the LSTM in each direction.
        layers: Of the LSTM.
        dropout: Before, between and after the LSTM's layers.
        shortcut: Whether there is a shortcut, see :class:`ColumnNetwork`.

    Raises:
        ValueError: If the stages do not fit the height or a setting is out of range.
    """

    reader = "rnn"

    def __init__(
        self,
        num_classes: int,
        height: int,
        stages: Sequence[Mapping[str, Any]] | LineBackbone,
        collapse: str = "flatten",
        width: int = 256,
        hidden: int = 192,
        layers: int = 2,
        dropout: float = 0.2,
        shortcut: bool = True,
    ) -> None:
        if min(num_classes, height, hidden, layers) < 1 or width < 0:
            raise ValueError("num_classes, height, hidden and layers must be at least 1, and width at least 0")
        super().__init__(stages if isinstance(stages, LineBackbone) else LineStages(height, stages), collapse)
        self.neck = nn.Sequential(nn.Linear(self.features, width), nn.ReLU()) if width else nn.Identity()
        self.dropout = Dropout(dropout)
        self.rnn = BiLSTM(width or self.features, hidden, layers, dropout)
        self.add_outputs(num_classes, width or self.features, 2 * hidden, shortcut)

    def read(self, columns: Tensor, lengths: Tensor) -> Tensor:
        """See :meth:`ColumnNetwork.read`."""
        read: Tensor = self.dropout(self.rnn(self.dropout(columns), lengths))
        return read
