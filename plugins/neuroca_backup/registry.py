"""The registry of engines and stores is their folder: adding one is adding a module or a package.

A module `engines/<kind>.py` that defines `ENGINE`, or `stores/<kind>.py` that defines `STORE`,
is known under its file's name, which is also the word in `backup.yaml`.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Any

from neuroca_backup.errors import ConfigurationError

if TYPE_CHECKING:
    from types import ModuleType


def kinds(package: ModuleType) -> list[str]:
    """Return the known words of `package`, e.g. `["postgresql"]`, without importing them."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def load(package: ModuleType, kind: str, attribute: str) -> Any:
    """Return `attribute` of the module named `kind`.

    Raises:
        ConfigurationError: There is no such kind; the message lists those that exist.
    """
    known = kinds(package)
    if kind not in known:
        noun = attribute.lower()
        raise ConfigurationError(
            f"{kind!r} is not a known {noun}",
            remedy=f"Use one of: {', '.join(known)}.",
            value=kind,
        )
    return getattr(import_module(f"{package.__name__}.{kind}"), attribute)
