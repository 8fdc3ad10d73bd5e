"""One HTML file without network access: its own style and scripts, and a policy that lets nothing
else run."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lmd_cli.report.palette import stylesheet
from lmd_cli.results.read_run import RunResults


def document(template: str, scripts: Sequence[str], style: str = "") -> Callable[..., bytes]:
    """From a template's values to the page's bytes; every text of theirs is escaped.

    Args:
        template: its file in ``templates/``.
        scripts: files there.
        style: rules of this page alone.
    """
    environment = _templates()
    css, *texts = (_own(environment, name) for name in ("style.css", *scripts))
    css = Markup(stylesheet()) + css + Markup(style)
    own = {"css": css, "scripts": texts, "policy": _policy(css, texts)}
    loaded = environment.get_template(template)

    def render(**values: Any) -> bytes:
        return loaded.render(**own, **values).encode()

    return render


@functools.cache
def _templates() -> Environment:
    """Keeps what it has compiled."""
    return Environment(
        loader=PackageLoader("lmd_cli.report.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )


def page_margin(runs: Sequence[RunResults]) -> str:
    """On each printed page: which runs, the hashes of their records, and the page's number."""
    named = [f"run {run.path.resolve().name}, run.json sha256 {run.sha256}" for run in runs]
    said = "; ".join(named)
    text = "".join(c if c.isascii() and c.isalnum() else f"\\{ord(c):06x}" for c in said)
    return (
        f'@page {{ margin: 9mm 10mm 12mm; @bottom-left {{ content: "{text}"; font-size: 7pt; }} '
        '@bottom-right { content: counter(page) " / " counter(pages); font-size: 7pt; } }\n'
    )


def _own(environment: Environment, name: str) -> Markup:
    """One of the page's own files, which need no escaping."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _policy(css: str, scripts: Sequence[str]) -> str:
    """Nothing is fetched, and nothing runs but these."""
    allowed = " ".join(_digest(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_digest(css)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
