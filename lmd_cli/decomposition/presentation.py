"""How results show themselves: a few lines by themselves, pictures and frames by what is set here.

The method needs torch only, so it draws nothing. :func:`present_with` takes the module that does,
from the layer that puts the package together (``lmd_cli`` does when one of its names is first asked
for); it is imported when something is first shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from lmd_cli.decomposition.errors import DecompositionError


class Presentation(Protocol):
    """What is called with a result that is to be shown."""

    def html(self, result: Any) -> str:
        """A fragment of HTML: shares and small maps."""

    def plot(self, result: Any, **options: Any) -> Any:
        """A picture."""

    def layers_frame(self, result: Any) -> Any:
        """A pandas frame with one row for each layer."""


_load: Callable[[], Presentation] | None = None


def present_with(load: Callable[[], Presentation]) -> None:
    """Sets what gives the presentation; called once something is to be shown."""
    global _load
    _load = load


class Presented:
    """A result that can be looked at in a notebook."""

    def _repr_html_(self) -> str | None:
        """For notebooks: shares and small maps; nothing where no presentation is set."""
        return None if _load is None else _load().html(self)

    def plot(self, **options: Any) -> Any:
        """A picture of the prediction and its parts (:class:`lmd_cli.report.notebook.Picture`).

        Args:
            options: of :func:`lmd_cli.report.notebook.plot`.

        Raises:
            DecompositionError: no presentation is set.
        """
        return presentation().plot(self, **options)


def presentation() -> Presentation:
    """What was set.

    Raises:
        DecompositionError: nothing was.
    """
    if _load is None:
        raise DecompositionError(
            "nothing is set that draws results: take decompose from lmd_cli, or call "
            "lmd_cli.decomposition.presentation.present_with"
        )
    return _load()
