"""Makes the sweeper and the launchers known to Hydra."""

from __future__ import annotations

import sys
from types import ModuleType

from hydra.core.plugins import Plugins

from hwr.sweeps.launchers import Here, Processes, Slurm
from hwr.sweeps.sweeper import OptunaSweeper

PLACE = "hydra_plugins.hwr"  # Hydra takes plugins from below hydra_plugins only


def register() -> None:
    """Gives them the names that ``conf/hydra`` calls them by.

    A real package of that name would be imported at every start of ``hwr`` and of every other Hydra application around.
    """
    plugins = Plugins.instance()  # looks for installed plugins, once, before there is a module of ours
    module = sys.modules[PLACE] = ModuleType(PLACE)
    sys.modules.setdefault("hydra_plugins", ModuleType("hydra_plugins")).hwr = module  # type: ignore[attr-defined]  # new
    for plugin in (OptunaSweeper, Here, Processes, Slurm):
        named = type(plugin.__name__, (plugin,), {"__module__": PLACE})
        setattr(module, plugin.__name__, named)
        plugins.register(named)
