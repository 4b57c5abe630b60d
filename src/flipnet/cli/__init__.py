"""The `flipnet` command: parse options, call one function per command, print.

Torch and diffusers are imported inside the commands, so that `flipnet --help` and mistyped options answer at
once. Shared options are in `options` and `engine`; the other modules hold a group of commands each.
"""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from flipnet import __version__
from flipnet.cli.degrading import degrade
from flipnet.cli.exit_codes import EXIT_SOME_FAILED, EXIT_USAGE
from flipnet.cli.measuring import benchmark, evaluate
from flipnet.cli.restoring import demo, faces_command, restore
from flipnet.cli.serving import serve
from flipnet.cli.training import export, train
from flipnet.commands.terminal import shown
from flipnet.types import FlipnetError

__all__ = ["EXIT_SOME_FAILED", "EXIT_USAGE", "app", "main"]

app = typer.Typer(
    help="Restore faces in old, small and blurred photos.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"flipnet {__version__}")
        raise typer.Exit


@app.callback()
def flipnet(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Restore faces in old, small and blurred photos."""


# In the order of `flipnet --help`.
app.command()(restore)
app.command("faces")(faces_command)
app.command()(degrade)
app.command()(demo)
app.command()(serve)
app.command()(benchmark)
app.command()(train)
app.command()(export)
app.add_typer(evaluate, name="evaluate")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code; `arguments` defaults to those of the process.

    Raises:
        SystemExit: always; an error meant for the user is printed as one line on stderr first.
    """
    if arguments is None:
        # The process ends with this command: looking through all that was loaded for garbage would take 0.9 s.
        atexit.register(gc.freeze)
    try:
        app(arguments, prog_name="flipnet")
    except FlipnetError as error:
        typer.echo(f"flipnet: {shown(error)}", err=True)
        sys.exit(EXIT_USAGE)
