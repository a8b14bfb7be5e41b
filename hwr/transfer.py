"""Starting from another model: what it is, how its weights fit other classes or another charset, and what is lost."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from hwr import bundle
from hwr.bundle import Bundle
from hwr.data.base import CharacterDataModule
from hwr.data.lines.base import LineDataModule
from hwr.errors import HwrError
from hwr.networks.outputs import OUTPUTS, relatives, spread, with_rows
from hwr.text import Charset, code_points

log = logging.getLogger(__name__)
CHANGES = ("extend", "keep", "replace")
PREFIXES = ("network.", "net.", "model.", "module.", "_orig_mod.")  # of Lightning's systems, wrappers, compiled modules
WITHIN = ("state_dict", "model_state_dict", "model", "network", "net", "weights")  # where checkpoints have weights
INHERITED = ("data", "licence", "attribution", "init_from")  # what a model owes to the one that it started from


@dataclass(frozen=True)
class Start:
    """A model to start from.

    Attributes:
        name: As it was asked for.
        weights: A state dict.
        model: What the weights mean; None if nobody knows.
    """

    name: str
    weights: Mapping[str, Tensor]
    model: Bundle | None

    @property
    def about(self) -> dict[str, Any]:
        """What the new model has to say of this one."""
        about = self.model.about if self.model else {}
        own = {"name": about.get("name", Path(self.name).name)}
        return {"init_from": {**own, **{key: about[key] for key in INHERITED if key in about}}}

    def charset(self, make: Callable[[Iterable[str]], Charset], on_change: str) -> Callable[[Iterable[str]], Charset]:
        """Makes a charset like ``make``, but with regard to the start's.

        Args:
            make: Makes the data's own charset from the training transcripts.
            on_change: ``extend``: the start's characters, in its order, then the data's others in theirs; ``keep``: the
                start's; ``replace``: the data's.

        Raises:
            HwrError: If ``on_change`` is none of the three; later, if the charsets have nothing in common.
        """
        if on_change not in CHANGES:
            raise HwrError(f"charset.on_change={on_change}: it is one of {', '.join(CHANGES)}")
        model = self.model
        if model is None or model.kind != "line":
            return make

        def made(texts: Iterable[str]) -> Charset:
            own, old = make(texts).characters, model.charset.characters
            if not set(own) & set(old) - {" "}:
                raise HwrError(
                    f"init_from={self.name} has no character in common with the data: it knows {code_points(old, 4)}, "
                    f"the data has {code_points(own, 4)}; choose a model of this script, or train without init_from"
                )
            added = "".join(c for c in own if c not in old)
            return Charset({"extend": old + added, "keep": old, "replace": own}[on_change])

        return made

    def prepare(self, data: CharacterDataModule | LineDataModule, follow: bool) -> None:
        """Checks that data is of the kind that the start reads.

        Args:
            data: Not set up yet.
            follow: Whether its images are to be prepared as the start needs them.

        Raises:
            HwrError: If it is not.
        """
        if self.model is None:
            return
        kind = "line" if isinstance(data, LineDataModule) else "character"
        if self.model.kind != kind:
            raise HwrError(f"init_from={self.name} reads {self.model.kind}s, and this data is of {kind}s")
        if follow:
            changes = _differences(self.model.preprocess.to_dict(), data.preprocess.to_dict())
            data.preprocess = self.model.preprocess
            if changes:
                _say(f"init_from={self.name}: images are prepared as it needs them: {changes}")


@dataclass(frozen=True)
class Taken:
    """What a network took over from its start.

    Attributes:
        whole: Names of the parameters and buffers that are the start's.
        rows: For each parameter with a row a class, where classes changed: which of its rows are the start's.
        fresh: Names of all others.
    """

    whole: frozenset[str]
    rows: Mapping[str, tuple[int, ...]]
    fresh: frozenset[str]


def find(init_from: str) -> Start:
    """Loads what ``init_from=`` names: a run, a bundle, a checkpoint, a shipped model, or bare weights.

    Raises:
        HwrError: If there is nothing of the kind, or it is damaged.
    """
    path = Path(init_from).expanduser()
    if not path.is_file():
        model = bundle.load(init_from)
        return Start(init_from, model.weights, model)
    content = bundle.read_state(path)
    if "hwr" in content:
        model = bundle.from_checkpoint(path)
        return Start(init_from, model.weights, model)
    return Start(init_from, _bare(content, path), None)


def network_of(given: Mapping[str, Any] | None, start: Start | None) -> dict[str, Any]:
    """The configuration entry of the network: as given, or the start's with what is given on top.

    Raises:
        HwrError: If there is neither.
    """
    if given and "_target_" in given:
        return dict(given)
    if start is None:
        raise HwrError("network=null is the network of a start model: add init_from=MODEL, or give network=NAME")
    if start.model is None:
        raise HwrError(f"init_from={start.name}: bare weights do not say of which network; give network=NAME")
    return {**start.model.network, **(given or {})}


def take(start: Start, network: nn.Module, model: Bundle, mismatch: str) -> Taken:
    """Puts the start's weights into a network, as far as they fit, and says what became of them.

    Rows of the outputs go by the names of the classes. A new class of characters keeps its fresh row; for a new
    character of a charset see :func:`hwr.networks.outputs.with_rows`.

    Args:
        start: Where the weights come from.
        network: With fresh weights.
        model: What the network's outputs mean.
        mismatch: What to do with layers that do not fit: ``error``, or ``fresh``: they keep their fresh weights.

    Raises:
        HwrError: If layers do not fit and shall not stay fresh, or if none fits.
    """
    if mismatch not in ("error", "fresh"):
        raise HwrError(f"init_mismatch={mismatch}: it is error or fresh")
    if not all(bool(torch.isfinite(value).all()) for value in start.weights.values()):
        raise HwrError(f"init_from={start.name}: some of its weights are no numbers; take an earlier checkpoint")
    own = network.state_dict()
    old, new = _outputs(start.model or model), _outputs(model)
    sources = [old.index(name) if name in old else None for name in new]
    same = old == new
    bad = _misfits(own, start.weights, None if same else (len(old), len(new)))
    good = [name for name in own if _layer(name) not in bad]
    if not any(own[name].ndim > 1 and _layer(name) not in OUTPUTS for name in good):
        raise HwrError(f"{_wrong(start, bad, model)}; none of its layers fits before the head")
    if bad and mismatch == "error":
        raise HwrError(f"{_wrong(start, bad, model)}; init_mismatch=fresh starts these layers afresh")
    if bad:
        log.warning("%s; these layers start afresh", _wrong(start, bad, model))
    near = relatives(old, new) if model.kind == "line" else {}
    state, rows = dict(own), {}
    for name in good:
        value = start.weights[name].to(own[name].dtype)
        if not same and _layer(name) in OUTPUTS:
            value = with_rows(own[name], value, sources, near, spread(start.weights[f"{_layer(name)}.weight"].float()))
            rows[name] = tuple(i for i, source in enumerate(sources) if source is not None)
        state[name] = value
    network.load_state_dict(state)
    _tell(start, model, old, new)
    whole = frozenset(good) - rows.keys()
    return Taken(whole, rows, frozenset(own) - whole - rows.keys())


def fingerprint(init_from: str) -> str:
    """What tells the weights of a start model from any other's, as hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in sorted(find(init_from).weights.items()):
        digest.update(name.encode() + value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _bare(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict under the names that a network of ours has for them."""
    for key in WITHIN:
        content = content[key] if isinstance(content.get(key), Mapping) else content
    weights = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    while prefix := next((p for p in PREFIXES if any(name.startswith(p) for name in weights)), None):
        weights = {name.removeprefix(prefix): v for name, v in weights.items() if name.startswith(prefix)}
    if not weights:
        raise HwrError(f"{path}: no checkpoint with weights, and no state dict")
    return {name.replace("_orig_mod.", ""): value for name, value in weights.items()}


def _outputs(model: Bundle) -> tuple[str, ...]:
    """What each output stands for; "" is the blank."""
    return ("", *model.classes) if model.kind == "line" else model.classes


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _misfits(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor], sizes: tuple[int, int] | None) -> dict[str, str]:
    """What is wrong with each layer that does not fit; numbers of outputs may be these two, theirs and ours."""
    bad: dict[str, str] = {}
    for name, value in own.items():
        layer, shape = _layer(name), tuple(value.shape)
        if name not in theirs:
            missing = not any(_layer(other) == layer for other in theirs)
            bad.setdefault(layer, "is missing" if missing else f"has no {name.rpartition('.')[2]}")
            continue
        found = tuple(theirs[name].shape)
        if sizes and layer in OUTPUTS and (found[:1], shape[:1]) == ((sizes[0],), (sizes[1],)):
            found = (sizes[1], *found[1:])  # its rows are found by name
        if found != shape:
            bad.setdefault(layer, f"{tuple(theirs[name].shape)}, here {shape}")
    for name in theirs:
        if name not in own:
            bad.setdefault(_layer(name), "is not in this network")
    return bad


def _wrong(start: Start, bad: Mapping[str, str], model: Bundle, most: int = 8) -> str:
    listed = "; ".join(f"{layer} {what}" for layer, what in list(bad.items())[:most])
    more = f" and {len(bad) - most} more" if len(bad) > most else ""
    line = f"init_from={start.name}: the weights are of another network: {listed}{more}"
    if start.model is None:
        return line
    changes = _differences(start.model.preprocess.to_dict(), model.preprocess.to_dict())
    changes = f" (data.preprocess: {changes})" if changes else ""
    return f"{line}{changes}; network=null takes the network of the start"


def _tell(start: Start, model: Bundle, old: Sequence[str], new: Sequence[str]) -> None:
    """Says what the new model has in common with its start, and warns of what may go wrong with it."""
    if start.model is None:
        log.warning(
            "init_from=%s: bare weights: nothing is known of their classes and preprocessing; the outputs are taken "
            "for those of %s, in this order",
            *(start.name, _listed(model.classes)),
        )
        return
    network = _differences(start.model.network, model.network, ignored="dropout")
    if network:
        log.warning("init_from=%s: the network differs from the start's: %s", start.name, network)
    preprocess = _differences(start.model.preprocess.to_dict(), model.preprocess.to_dict())
    if preprocess:
        log.warning(
            "init_from=%s: data.preprocess differs from the start's, which never saw such images: %s; network=null "
            "takes it over with the network",
            *(start.name, preprocess),
        )
    what = "characters" if model.kind == "line" else "classes"
    kept = sum(name in old for name in new if name)
    text = f"init_from={start.name}: {kept} {what} kept"
    for fate, names in (("new", [n for n in new if n not in old]), ("dropped", [n for n in old if n not in new])):
        text += f", {len(names)} {fate}" + (f": {_listed(names)}" if names else "")
    if not kept:
        text += "; no class in common: features are taken over, the head starts afresh"
    if start.model.ngram is not None:
        text += "; its n-gram model stays behind, python -m hwr.ngram makes one of the new texts"
    _say(text)


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = (name if name.isprintable() and name.strip() else repr(name) for name in names[:most])
    return " ".join(shown) + (" ..." if len(names) > most else "")


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any], ignored: str = "-") -> str:
    """Settings that differ, as text; those whose names end in ``ignored`` do not count."""
    old, new = _flat(theirs), _flat(ours)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name) and not name.endswith(ignored)]
    return ", ".join(f"{name} {old.get(name)}, here {new.get(name)}" for name in names)


def _flat(settings: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(settings, Mapping | list | tuple):
        return {name: settings}
    items = settings.items() if isinstance(settings, Mapping) else enumerate(settings)
    return {k: v for key, value in items for k, v in _flat(value, f"{name}.{key}" if name else f"{key}").items()}


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
