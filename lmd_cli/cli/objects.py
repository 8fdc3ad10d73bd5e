"""``lmd objects``: the tokens that ``--object`` takes."""

from __future__ import annotations

from lmd_cli.cli import options


def command(
    given: options.DataOptions,
    sample_token: options.SampleToken = None,
    debug: options.Debug = False,
) -> None:
    """List a sample's vehicles, which gradcam --object takes, the nearest first."""
    run = given.load()
    from lmd_cli.cli import show
    from lmd_cli.runtime.progress import make_progress
    from lmd_cli.workflows.listings import list_objects

    rows = [
        (
            one.token,
            one.category,
            f"{one.distance:.1f}",
            str(one.visibility),
            "yes" if one.on_map else "no",
        )
        for one in list_objects(run, sample_token, make_progress())
    ]
    show.table(["object", "category", "distance (m)", "visibility", "on the map"], rows)
    if not rows:
        show.lines(["this sample has no annotated vehicle"])
