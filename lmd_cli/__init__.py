"""Layer-Wise Modality Decomposition: which sensor carried this prediction?

``lmd_cli.decompose`` splits what any function of several modalities returns; ``lmd`` on the
command line does it for fusion networks on nuScenes. Both are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmd_cli.config.loading import load_config
    from lmd_cli.config.schema import RunConfig
    from lmd_cli.decomposition import (
        Decomposition,
        Variant,
        decompose,
        explain_coverage,
        register_rule,
    )

__all__ = [
    "Decomposition",
    "RunConfig",
    "Variant",
    "decompose",
    "explain_coverage",
    "load_config",
    "register_rule",
]


def __getattr__(name: str) -> Any:
    """Late: torch takes seconds to import, and ``lmd --help`` needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from lmd_cli.supported import require_supported

    require_supported()
    homes = {"RunConfig": "config.schema", "load_config": "config.loading"}
    home = homes.get(name, "decomposition")
    return getattr(import_module(f"{__name__}.{home}"), name)
