"""``python -m hwr.sweeps.trial ...`` is ``hwr.train`` that ends with the process which holds its standard input.

A sweep that is killed cannot stop its trials; they would go on beside those of the sweep that continues it.
"""

from __future__ import annotations

import os
import threading

from hwr.train import main


def end_with_parent() -> None:
    """Waits until nobody holds the other end of standard input any more."""
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    main()
