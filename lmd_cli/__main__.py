"""``python -m lmd_cli``, and the console command ``lmd``."""

from __future__ import annotations

import sys

from lmd_cli.runtime.allocator import keep_freed_memory
from lmd_cli.runtime.printable import use_plain_text
from lmd_cli.supported import unsupported


def main() -> None:
    """Runs the command line."""
    if problem := unsupported():
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    keep_freed_memory()
    use_plain_text()
    try:
        from lmd_cli.cli.app import app

        app(prog_name="lmd")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
