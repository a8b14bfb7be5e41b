"""Networks: plain modules with a ``backbone``, a ``head`` and ``reset_head(n)``; no loss, path or configuration inside.

A bundle may only name a network that is listed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwr.errors import HwrError
from hwr.networks.base import CharacterNetwork, LineNetwork
from hwr.networks.cnn import CNN
from hwr.networks.crnn import CRNN
from hwr.networks.crnn_mobilenet import MobileNetCRNN
from hwr.networks.torchvision_nets import MobileNetV3, ResNet18
from hwr.networks.transformer import LineTransformer

__all__ = [
    "CNN",
    "CRNN",
    "CharacterNetwork",
    "LineNetwork",
    "LineTransformer",
    "MobileNetCRNN",
    "MobileNetV3",
    "ResNet18",
    "build",
]

_CHARACTERS = {f"hwr.networks.{net.__name__}": net for net in (CNN, ResNet18, MobileNetV3)}
_LINES = {f"hwr.networks.{net.__name__}": net for net in (CRNN, MobileNetCRNN, LineTransformer)}


def build(config: Mapping[str, Any], **kwargs: Any) -> CharacterNetwork | LineNetwork:
    """Makes a network from its configuration entry, without Hydra and from a closed list.

    Args:
        config: ``{"_target_": "hwr.networks.CNN", ...}``, as in ``conf/network`` and in a bundle.
        kwargs: What the data decides: ``num_classes``, and ``image_size`` (characters) or ``height`` (lines).

    Raises:
        HwrError: If the network is unknown or its settings do not fit.
    """
    settings = {**config, **kwargs}
    target = settings.pop("_target_", None)
    known: dict[str, Any] = _LINES if "height" in kwargs else _CHARACTERS
    what = "lines" if "height" in kwargs else "characters"
    if target not in known:
        raise HwrError(f"network {target!r} is not one of {', '.join(known)}, which read {what}")
    try:
        network: CharacterNetwork | LineNetwork = known[target](**settings)
        return network
    except (TypeError, ValueError) as error:
        raise HwrError(f"network {target}: {error}") from error
