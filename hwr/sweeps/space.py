"""What a sweep varies: Hydra's sweep overrides as dimensions that Optuna can choose from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    Glob,
    IntervalSweep,
    Override,
    QuotedString,
    RangeSweep,
    Transformer,
)
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial

from hwr.errors import HwrError

SET_HERE = ("ckpt_path", "run_dir")
Value = str | int | float | bool | None


@dataclass(frozen=True)
class Dimension:
    """One key that is varied.

    Attributes:
        key: As typed, with its ``+`` and ``@package`` where it has them.
        distribution: Optuna's.
        texts: Every value and how it is typed, in the order of the command; empty for an interval.
    """

    key: str
    distribution: BaseDistribution
    texts: Mapping[Value, str] = field(default_factory=dict)

    def suggest(self, trial: BaseTrial) -> Value:
        """The trial's value: the one it has already, or a new one."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return trial.suggest_categorical(self.key, choices)
            case IntDistribution(low=low, high=high, step=step, log=log):
                return trial.suggest_int(self.key, low, high, step=step, log=log)
            case FloatDistribution(low=low, high=high, step=step, log=log):
                return trial.suggest_float(self.key, low, high, step=step, log=log)
        raise AssertionError(self.distribution)

    def override(self, value: Value) -> str:
        """``key=value`` as it is typed; numbers out of an interval have six digits."""
        text = self.texts.get(value)
        if text is None:
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
        return f"{self.key}={text}"

    def extremes(self) -> list[str]:
        """The overrides that are worth a look before anything runs: every choice, or both ends."""
        if isinstance(self.distribution, CategoricalDistribution):
            return [self.override(value) for value in self.texts]
        assert isinstance(self.distribution, IntDistribution | FloatDistribution)
        return [self.override(self.distribution.low), self.override(self.distribution.high)]

    def values(self) -> str:
        """What there is to choose from, as it is typed."""
        if self.texts:
            return ",".join(self.texts.values())
        assert isinstance(self.distribution, IntDistribution | FloatDistribution)
        ends = f"interval({self.distribution.low:.6g},{self.distribution.high:.6g})"
        return f"tag(log,{ends})" if self.distribution.log else ends


@dataclass(frozen=True)
class Space:
    """All that a sweep varies, and what it leaves as it is.

    Attributes:
        dimensions: In the order of the command.
        fixed: The other overrides.
    """

    dimensions: tuple[Dimension, ...]
    fixed: tuple[str, ...]

    @property
    def combinations(self) -> int:
        """How many there are.

        Raises:
            HwrError: If they cannot be counted.
        """
        for dimension in self.dimensions:
            if not dimension.texts:
                raise HwrError(
                    f"{dimension.key}: a grid needs single values; list some, or choose sweep=tpe or sweep=random"
                )
        return math.prod(len(dimension.texts) for dimension in self.dimensions)

    @property
    def seeds(self) -> tuple[Value, ...]:
        """The values of ``seed``, if several are to be tried."""
        return next((tuple(d.texts) for d in self.dimensions if d.key == "seed"), ())

    def combination(self, number: int) -> dict[str, Value]:
        """One point of the grid; what was typed last changes fastest."""
        found: dict[str, Value] = {}
        for dimension in reversed(self.dimensions):
            number, index = divmod(number, len(dimension.texts))
            found[dimension.key] = list(dimension.texts)[index]
        return found

    def overrides(self, values: Mapping[str, Value]) -> list[str]:
        """What is typed for some values."""
        return [dimension.override(values[dimension.key]) for dimension in self.dimensions]

    def first(self) -> list[str]:
        """The overrides of any one trial, as an example of all."""
        return [*self.fixed, *(dimension.extremes()[0] for dimension in self.dimensions)]


def parse(arguments: Iterable[str], loader: ConfigLoader) -> Space:
    """Tells what is varied from what is not; of several values for one key the last counts.

    Args:
        arguments: Overrides in Hydra's grammar.
        loader: Hydra's, which knows the options of groups.

    Raises:
        HwrError: If there is nothing to choose from, or the key is none that can be varied.
    """
    last = {o.get_key_element(): o for o in OverridesParser.create(loader).parse_overrides(list(arguments))}
    varied = {key: override for key, override in last.items() if override.is_sweep_override()}
    for key in last:
        if key in SET_HERE:
            raise HwrError(f"{key}: a sweep sets it for each of its trials; leave it out")
        if key in varied and key.split(".")[0] == "sweep":
            raise HwrError(f"{key}: cannot be varied within a sweep; give one value")
    fixed = tuple(str(override.input_line) for key, override in last.items() if key not in varied)
    return Space(tuple(_dimension(key, override, loader) for key, override in varied.items()), fixed)


def _dimension(key: str, override: Override, loader: ConfigLoader) -> Dimension:
    sweep: Any = override.value()
    try:
        if isinstance(sweep, IntervalSweep):
            return Dimension(key, _interval(sweep))
        if isinstance(sweep, RangeSweep):
            return _range(key, sweep)
    except ValueError as error:
        raise HwrError(f"{override.input_line}: {error}") from None
    if isinstance(sweep, Glob):
        known = loader.get_group_options(override.key_or_group)
        found = sweep.filter(known)
        if not found:
            raise HwrError(f"{override.input_line}: matches nothing; known: {', '.join(known) or 'none'}")
    else:
        found = sweep.list
    texts = {_plain(value): Transformer.str(value) for value in found}
    return Dimension(key, CategoricalDistribution(list(texts)), texts)


def _interval(sweep: IntervalSweep) -> BaseDistribution:
    low, high, log = sweep.start, sweep.end, "log" in sweep.tags
    assert low is not None
    assert high is not None
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


def _range(key: str, sweep: RangeSweep) -> Dimension:
    values = list(sweep.range())  # in order also where it was to be shuffled: a sweep that goes on must know the order
    if not values:
        raise ValueError("an empty range; start:stop:step leaves nothing to choose from")
    values = [
        float(f"{value:.6g}") if isinstance(value, float) else value for value in values
    ]  # 0.3, not 0.30000000004
    texts: dict[Value, str] = {value: Transformer.str(value) for value in values}
    step = sweep.step
    if step < 0 or len(values) == 1:
        return Dimension(key, CategoricalDistribution(values), texts)
    if all(isinstance(value, int) for value in values):
        return Dimension(key, IntDistribution(values[0], values[-1], step=int(step)), texts)
    return Dimension(key, FloatDistribution(values[0], values[-1], step=step), texts)


def _plain(value: Any) -> Value:
    """A value as Optuna stores it: lists and dictionaries as they are typed."""
    if isinstance(value, QuotedString):
        return str(value.text)
    return value if value is None or isinstance(value, str | int | float) else str(Transformer.str(value))
