"""What may happen: uncertainty sets, their support functions, and certificates for those fitted to data.

One family per file. A family names itself in `UncertaintySet.family` and registers its fitter next to its class;
`load_families` imports every file of this room, so that nothing has to be listed anywhere.
"""

from __future__ import annotations

import importlib
import pkgutil


def load_families() -> None:
    """Import every module of this room: fills `base.FAMILIES` and `fit.FITTERS`."""
    for info in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{info.name}")
