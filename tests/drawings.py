"""What tests of figures look at: pixels and texts."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def drawn(figure: Figure) -> np.ndarray[Any, Any]:
    """Return the pixels of a figure, with any warning (such as a missing glyph) an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def texts(figure: Figure) -> list[str]:
    """Return the title of a figure and then the texts in it."""
    return [text.get_text() for text in [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]]
