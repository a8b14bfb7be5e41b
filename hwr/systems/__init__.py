"""LightningModules: what a batch means, its loss, metrics and optimiser."""

from hwr.systems.base import System
from hwr.systems.character import CharacterSystem
from hwr.systems.line import LineSystem

__all__ = ["CharacterSystem", "LineSystem", "System"]
