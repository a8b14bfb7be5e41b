"""Everything in a training that is not learning."""

from hwr.callbacks.averaging import EMAWeightAveraging
from hwr.callbacks.checkpoint_io import AtomicCheckpointIO
from hwr.callbacks.freeze import FreezeSchedule, GradualUnfreezing
from hwr.callbacks.gallery import Gallery
from hwr.callbacks.history import History
from hwr.callbacks.line_gallery import LineGallery
from hwr.callbacks.progress import Progress
from hwr.callbacks.record import Record
from hwr.callbacks.resources import ResourceMonitor
from hwr.callbacks.within_epoch import WithinEpoch

__all__ = [
    "AtomicCheckpointIO",
    "EMAWeightAveraging",
    "FreezeSchedule",
    "Gallery",
    "GradualUnfreezing",
    "History",
    "LineGallery",
    "Progress",
    "Record",
    "ResourceMonitor",
    "WithinEpoch",
]
