"""A model as a directory: everything needed to use it somewhere else, and nothing that can run code.

``bundle.json`` holds the format version, whether the model reads characters or lines, the network's configuration
entry, the classes or the charset, the preprocessing, figures and provenance; ``weights.safetensors`` the weights;
``README.md`` says the same to people. A model of lines may have ``ngram.npz`` and ``ngram.json`` beside them: a
language model and its weight, for beam search.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from hwr.errors import HwrError
from hwr.files import new_directory, write_bytes, write_json, write_text
from hwr.line_preprocess import LinePreprocess
from hwr.networks import CharacterNetwork, LineNetwork, build
from hwr.preprocess import CharacterPreprocess
from hwr.text import Charset

FORMAT = 1
SHIPPED = Path(__file__).parent / "bundles"
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batch-norm: weights that nothing trains


@dataclass(frozen=True)
class Bundle:
    """A model, with or without its weights.

    Attributes:
        network: The configuration entry of the network, plain containers.
        classes: Names of the outputs, in order; for lines the characters, without the blank.
        preprocess: How an image becomes what the network sees; tells models of characters from models of lines.
        weights: The network's state dict (empty: not trained yet).
        metrics: Figures, such as ``test/accuracy``.
        about: Provenance: data, licence, command, versions.
        ngram: Where the language model of its texts lies, if there is one: ``ngram.npz``, with its ``ngram.json``.
    """

    network: Mapping[str, Any]
    classes: tuple[str, ...]
    preprocess: CharacterPreprocess | LinePreprocess
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    ngram: Path | None = None

    def describe(self) -> dict[str, Any]:
        """What the weights mean, as plain containers."""
        names = {"charset": self.charset.characters} if self.kind == "line" else {"classes": list(self.classes)}
        own = {"network": dict(self.network), **names, "preprocess": self.preprocess.to_dict()}
        return {"format": FORMAT, "kind": self.kind, **own}

    @property
    def kind(self) -> str:
        """``character`` or ``line``."""
        return "line" if isinstance(self.preprocess, LinePreprocess) else "character"

    @property
    def charset(self) -> Charset:
        """The characters that a model of lines reads."""
        return Charset("".join(self.classes))

    def build(self) -> CharacterNetwork | LineNetwork:
        """Makes the network, with its weights if there are any.

        Raises:
            HwrError: If the weights are not of this network.
        """
        if isinstance(self.preprocess, LinePreprocess):
            sizes = {"num_classes": self.charset.num_classes, "height": self.preprocess.height}
        else:
            sizes = {"num_classes": len(self.classes), "image_size": self.preprocess.size}
        net = build(self.network, **sizes)
        if self.weights:
            load_weights(net, self.weights)
        return net

    def example(self, n: int, width: int = 1000) -> tuple[Tensor, ...]:
        """Random input of the network: images (n, 1, H, W), and their widths where they are lines."""
        if isinstance(self.preprocess, LinePreprocess):
            return torch.rand(n, 1, self.preprocess.height, width), torch.full((n,), width)
        return (torch.rand(n, 1, self.preprocess.size, self.preprocess.size),)

    def save(self, path: Path, half: bool = False) -> None:
        """Writes the directory, whole or not at all.

        Args:
            path: The directory; an older one is replaced.
            half: Store floating-point weights in half precision (they are read back as float32).
        """
        from safetensors.torch import save

        kept = {k: v.half() if half and v.is_floating_point() else v for k, v in self.weights.items()}
        with new_directory(path) as folder:
            write_bytes(folder / "weights.safetensors", save({k: v.cpu().contiguous() for k, v in kept.items()}))
            about = {"metrics": dict(self.metrics), "about": dict(self.about)}
            write_json(folder / "bundle.json", {**self.describe(), **about})
            write_text(folder / "README.md", self._card())
            for file in (self.ngram, self.ngram.with_suffix(".json")) if self.ngram else ():
                write_bytes(folder / file.name, file.read_bytes())

    def _card(self) -> str:
        parameters = sum(v.numel() for k, v in self.weights.items() if not k.endswith(STATISTICS))
        reads, what = ("Reads lines of", "characters") if self.kind == "line" else ("Reads", "classes")
        lines = [
            f"# {self.about.get('name', 'model')}",
            "",
            f"{reads} {len(self.classes)} {what}: {' '.join(self.classes[:150])}",
            "",
        ]
        lines += _listed({key: value for key, value in self.about.items() if key != "name"})
        lines += [f"- parameters: {parameters:,}", "", "| metric | value |", "|---|---|"]
        lines += [f"| {key} | {value:.5g} |" for key, value in self.metrics.items() if key != "parameters"]
        return "\n".join([*lines, "", "Use: `hwr-predict model=THIS_FOLDER images=*.png`", ""])


def _listed(items: Mapping[str, Any], indent: str = "") -> list[str]:
    """As a Markdown list; what is a mapping becomes a list within it."""
    lines = []
    for key, value in items.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}- {key}:", *_listed(value, indent + "  ")]
        else:
            lines.append(f"{indent}- {key}: {value}")
    return lines


def load(model: str | Path) -> Bundle:
    """Loads a model from a run, a bundle, a checkpoint, or by the name of a shipped one.

    Raises:
        HwrError: If there is none, or it is damaged or from a newer version.
    """
    path = Path(model).expanduser()
    for folder in (path, path / "bundle", SHIPPED / str(model)):
        if (folder / "bundle.json").is_file():
            return _from_directory(folder)
    for file in (path, path / "checkpoints" / "best.ckpt", path / "checkpoints" / "last.ckpt"):
        if file.is_file():
            return from_checkpoint(file)
    shipped = ", ".join(sorted(p.parent.name for p in SHIPPED.glob("*/bundle.json")))
    if path.is_dir():
        raise HwrError(
            f"{path}: neither bundle/ nor checkpoints/ in this run directory; did the run end before its first epoch?"
        )
    raise HwrError(f"{model}: no such run, bundle, checkpoint or shipped model (shipped: {shipped})")


def from_checkpoint(path: Path) -> Bundle:
    """Reads a training checkpoint (the averaged weights, where training averages them)."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        description, state = checkpoint["hwr"], checkpoint["state_dict"]
    except Exception as error:
        raise HwrError(f"{path}: not a checkpoint written by hwr, or damaged ({_first_line(error)})") from None
    weights = {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}
    bundle = _from_description(description, path)
    return replace(bundle, weights=weights, about={"name": path.name, **description.get("about", {})})


def read_state(path: Path) -> Mapping[str, Any]:
    """Reads a file of weights (``.safetensors``, or whatever ``torch.save`` wrote) without running anything in it.

    Raises:
        HwrError: If it is none, or damaged.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise HwrError(f"{path}: no checkpoint and no state dict, or damaged ({_first_line(error)})") from None
    if not isinstance(content, Mapping):
        raise HwrError(f"{path}: no checkpoint and no state dict, but a {type(content).__name__}")
    return content


def load_weights(network: torch.nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Puts weights into a network.

    Raises:
        HwrError: If names or shapes differ; the first few are named.
    """
    own = network.state_dict()
    wrong = [f"{k} is missing" for k in own if k not in weights]
    wrong += [f"{k} is not in this network" for k in weights if k not in own]
    wrong += [
        f"{k} is {tuple(weights[k].shape)}, here {tuple(v.shape)}"
        for k, v in own.items()
        if k in weights and weights[k].shape != v.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise HwrError(f"the weights are of another network: {'; '.join(wrong[:3])}{more}")
    network.load_state_dict({k: v.to(own[k].dtype) for k, v in weights.items()})


def _from_directory(folder: Path) -> Bundle:
    from safetensors.torch import load_file

    try:
        description = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "weights.safetensors")
    except Exception as error:
        raise HwrError(f"{folder}: a damaged bundle ({_first_line(error)}); export or copy it again") from None
    if any(bool(value.isnan().any()) for value in weights.values()):
        raise HwrError(f"{folder}: a damaged bundle (weights that are no numbers); export or copy it again")
    bundle = _from_description(description, folder)
    ngram = folder / "ngram.npz" if (folder / "ngram.json").is_file() else None
    figures = {"metrics": description.get("metrics", {}), "about": description.get("about", {})}
    return replace(bundle, weights=weights, ngram=ngram, **figures)


def _from_description(description: Mapping[str, Any], where: Path) -> Bundle:
    if not isinstance(description, Mapping):
        raise HwrError(f"{where}: a damaged bundle (its description is no object)")
    if description.get("format") != FORMAT:
        raise HwrError(
            f"{where}: bundle format {description.get('format')}, this version of hwr reads {FORMAT}; upgrade hwr"
        )
    try:
        line = description["kind"] == "line"
        network, classes = description["network"], description["charset" if line else "classes"]
        if not isinstance(network, Mapping):
            raise HwrError("network is no object")
        if not isinstance(classes, str | list | tuple) or not all(isinstance(name, str) for name in classes):
            raise HwrError(f"{'charset' if line else 'classes'} is no list of names")
        if len(set(classes)) < len(classes):
            raise HwrError(f"{'charset' if line else 'classes'} names something twice")
        preprocess = (LinePreprocess if line else CharacterPreprocess).from_dict(description["preprocess"])
        return Bundle(network, tuple(classes), preprocess)
    except KeyError as error:
        raise HwrError(f"{where}: a damaged bundle (no {error})") from None
    except (HwrError, TypeError) as error:
        raise HwrError(f"{where}: a damaged bundle ({error})") from None


def _first_line(error: Exception) -> str:
    if isinstance(error, UnpicklingError):  # torch says how to run what is in the file
        return "it is no file of torch's, or holds more than tensors and plain values, which is not run"
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
