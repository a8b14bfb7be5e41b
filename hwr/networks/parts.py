"""The parts of a network, and freezing them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Self

from torch import nn


class Network(nn.Module):
    """A network that says what it is made of, from input to output, so that training may leave parts as they are.

    Attributes:
        backbone: From images to features.
        head: The outputs.
    """

    backbone: nn.Module
    head: nn.Linear

    _frozen: frozenset[str] = frozenset()

    def parts(self) -> dict[str, list[nn.Module]]:
        """The modules of each part, from input to output, by the name of the first; every parameter is in one part."""
        return {**split("backbone", self.backbone), "head": [self.head]}

    def freeze(self, names: Collection[str]) -> None:
        """Freezes these of :meth:`parts`, and no others.

        What is frozen has no gradients, so that no optimiser touches it, and stays in evaluation mode whatever
        :meth:`train` says: batch-norm keeps its statistics, and dropout does nothing. Gradients still pass through it,
        to what comes before.
        """
        self._frozen = frozenset(names)
        for name, modules in self.parts().items():
            for parameter in nn.ModuleList(modules).parameters():
                parameter.requires_grad_(name not in self._frozen)
                parameter.grad = None
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of all parts that are not frozen."""
        super().train(mode)
        for name, modules in self.parts().items() if self._frozen else ():
            for module in nn.ModuleList(modules).modules() if name in self._frozen else ():
                if not isinstance(module, nn.RNNBase):  # cuDNN takes no gradient through an LSTM in evaluation mode
                    module.training = False
        return self


def split(name: str, module: nn.Module) -> dict[str, list[nn.Module]]:
    """Splits a module into ``name.child`` for each child; one without parameters goes with the child before it."""
    parts: dict[str, list[nn.Module]] = {}
    for child_name, child in module.named_children():
        if not parts or any(True for _ in child.parameters()):
            parts[f"{name}.{child_name}"] = []
        parts[list(parts)[-1]].append(child)
    return parts
