"""What ``--help`` shows: commands and options in groups, no sentence cut, and an example.

Contexts and formatters are click's, which newer versions of Typer bring themselves: no type names
both.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from lmd_cli.cli.output import Document

#: Of a command line that cannot be parsed, whoever brings click.
UsageError: Any = typer.BadParameter.__base__
#: Commands by what they are for.
GROUPS = {
    "Evaluate": ("demo", "evaluate", "table", "score", "sanity", "report", "detect"),
    "Look at samples": ("decompose", "gradcam", "layers", "objects", "samples"),
    "Check before a run": ("check", "inspect", "convert", "synthesize"),
    "Compare, check and keep a run": ("compare", "gate", "rerun", "verify", "bundle"),
    "This program": ("cache", "completion"),
}
OTHER = "More"
#: Options by what they are for; an option of a command's own is in none.
OPTIONS = {
    "Data, network and machine": (
        *("config", "settings", "dataroot", "checkpoint", "device", "precision", "memory"),
        *("workers", "trust"),
    ),
    "Which samples": ("scene", "tokens", "night", "rain"),
    "Results": ("output", "limit", "resume", "overwrite", "form", "style", "hash_data"),
    "Help": ("debug", "help"),
}
#: Behind ``lmd COMMAND``.
EXAMPLES = {
    "demo": "--output results/demo",
    "compare": "results/before results/after",
    "gate": "results/demo --require 'iou>=0.5'",
    "cache": "list",
    "completion": "bash",
    "evaluate": "--config demo.yaml",
    "table": "1 --config demo.yaml",
    "score": "--config demo.yaml --method shapley --limit 5",
    "sanity": "--config demo.yaml",
    "report": "results/demo",
    "detect": "--config demo_crn.yaml",
    "decompose": "--config demo.yaml --samples 3",
    "gradcam": "--config demo.yaml --layer decoder.layer1.0.bn1",
    "layers": "--config demo.yaml",
    "objects": "--config demo.yaml",
    "samples": "--config demo.yaml --limit 3",
    "check": "--config demo.yaml",
    "inspect": "--config demo.yaml",
    "convert": "model.pth model.safetensors",
    "synthesize": "--output my-nuscenes --split mini_val",
    "rerun": "results/demo",
    "verify": "results/demo",
    "bundle": "results/demo --output demo.zip",
}


class Commands(TyperGroup):
    """The list of commands, in groups."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """For each the first sentence of its help, never cut."""
        names = self.list_commands(ctx)
        grouped = {name for group in GROUPS.values() for name in group}
        groups = {**GROUPS, OTHER: tuple(name for name in names if name not in grouped)}
        for title, members in groups.items():
            rows = [(n, _first_line(self.commands[n])) for n in members if n in names]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class Command(TyperCommand):
    """A command's options in groups, an example at the end, and usage errors also as JSON."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer does; with ``--json`` an error is a document too."""
        as_json = "--json" in args
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            if as_json:
                message = f"error: {error.format_message()}"
                typer.echo(Document(self.name or "", error=message).text(error.exit_code))
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The command's own options first."""
        known = {name: title for title, names in OPTIONS.items() for name in names}
        rows: dict[str, list[tuple[str, str]]] = {"Options": [], **{t: [] for t in OPTIONS}}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                rows[known.get(parameter.name or "", "Options")].append(record)
        for title, records in rows.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """A command that can be copied, on one line."""
        if self.name in EXAMPLES:
            with formatter.section("Example"):
                formatter.write(f"{'':{formatter.current_indent}}lmd {self.name} ")
                formatter.write(f"{EXAMPLES[self.name]}\n")


def _first_line(command: Any) -> str:
    return str(command.help or "").strip().partition("\n")[0].removesuffix(".")
