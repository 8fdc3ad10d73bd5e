"""Layer-Wise Modality Decomposition: which sensor carried this prediction?

``lmd_cli.decompose`` splits what any function of several modalities returns; ``lmd`` on the
command line does it for fusion networks on nuScenes. Everything is imported when first used: torch
takes seconds to import, and ``lmd --help`` needs none of it.
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
    from lmd_cli.results.frames import load_run
    from lmd_cli.results.saved import load
    from lmd_cli.workflows.decompose import decompose_sample as sample
    from lmd_cli.workflows.in_memory import Evaluation, evaluate
    from lmd_cli.workflows.training_callback import TrainingCallback

__version__ = "0.1.0"
__all__ = [
    "Decomposition",
    "Evaluation",
    "RunConfig",
    "TrainingCallback",
    "Variant",
    "decompose",
    "evaluate",
    "explain_coverage",
    "load",
    "load_config",
    "load_run",
    "register_rule",
    "sample",
]
#: Where names are that are not in ``decomposition``, and what they are called there.
_HOMES = {
    "Evaluation": "workflows.in_memory:Evaluation",
    "RunConfig": "config.schema:RunConfig",
    "TrainingCallback": "workflows.training_callback:TrainingCallback",
    "evaluate": "workflows.in_memory:evaluate",
    "load": "results.saved:load",
    "load_config": "config.loading:load_config",
    "load_run": "results.frames:load_run",
    "sample": "workflows.decompose:decompose_sample",
}


def __getattr__(name: str) -> Any:
    """The interface, late."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from lmd_cli.supported import require_supported

    require_supported()
    home, _, own = _HOMES.get(name, f"decomposition:{name}").partition(":")
    value = getattr(import_module(f"{__name__}.{home}"), own)
    if not home.startswith("config."):  # which needs no torch
        from lmd_cli.decomposition.presentation import present_with

        present_with(lambda: import_module(f"{__name__}.report.notebook"))
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
