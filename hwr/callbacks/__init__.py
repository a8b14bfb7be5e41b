"""Everything in a training that is not learning."""

from hwr.callbacks.checkpoint_io import AtomicCheckpointIO
from hwr.callbacks.gallery import Gallery
from hwr.callbacks.history import History
from hwr.callbacks.line_gallery import LineGallery
from hwr.callbacks.progress import Progress
from hwr.callbacks.resources import ResourceMonitor

__all__ = ["AtomicCheckpointIO", "Gallery", "History", "LineGallery", "Progress", "ResourceMonitor"]
