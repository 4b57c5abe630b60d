"""How a run ends: 0 all done, 1 some input failed, 2 usage (whatever stops the whole run before it starts)."""

from __future__ import annotations

import typer

EXIT_SOME_FAILED = 1
EXIT_USAGE = 2


def fail_unless(all_done: bool) -> None:
    """End the command with EXIT_SOME_FAILED if some input failed."""
    if not all_done:
        raise typer.Exit(EXIT_SOME_FAILED)
