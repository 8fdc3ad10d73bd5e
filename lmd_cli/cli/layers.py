"""``lmd layers``: the names that ``--layer`` takes."""

from __future__ import annotations

from lmd_cli.cli import options


def command(
    given: options.NetworkOptions,
    sample_token: options.SampleToken = None,
    debug: options.Debug = False,
) -> None:
    """List the layers that gradcam --layer takes, in the order in which they run."""
    run = given.load()
    from lmd_cli.cli import show
    from lmd_cli.runtime.progress import make_progress
    from lmd_cli.workflows.listings import list_layers

    layers = list_layers(run, sample_token, make_progress())
    rows = [(one.name, one.kind, " x ".join(map(str, one.shape))) for one in layers]
    show.table(["layer", "kind", "channels x rows x columns"], rows)
