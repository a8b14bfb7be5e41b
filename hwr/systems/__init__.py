"""LightningModules: what a batch means, its loss, metrics and optimiser."""

from hwr.systems.character import CharacterSystem

__all__ = ["CharacterSystem"]
