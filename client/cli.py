"""`vc`: the bus on the command line.

Commands are imported when they are called, so that `vc --help` and a mistyped command answer at once. Every
error becomes one line with its code and one of three exit codes: 1 the bus or the work failed, 2 wrong use or
configuration, 130 interrupted. A traceback is a bug.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, Final, NamedTuple

import click

from ..common.errors import BusError, ConfigError
from ..common.printable import printable

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130


class _Home(NamedTuple):
    module: str
    attribute: str
    help: str


COMMANDS: Final = {
    "up": _Home("up", "up", "Run a broker and the workers of config.yaml in this terminal."),
    "say": _Home("say", "say", "Speak a text and write it to a file."),
    "batch": _Home("batch", "batch", "Speak every line of a file; can be interrupted and resumed."),
    "jobs": _Home("jobs", "jobs", "List, fetch and cancel jobs, those of other clients too."),
    "voices": _Home("voices", "voices", "Add, list, show and remove voices."),
    "status": _Home("status", "status", "Show workers, queues and rates."),
    "drain": _Home("drain", "drain", "Have a worker finish what it began and leave."),
    "bench": _Home("bench", "bench", "Measure how fast the bus is, with any engine."),
    "keys": _Home("keys", "keys", "Make, list and revoke keys of the bus and of the HTTP edge."),
    "models": _Home("models", "models", "Pull, list and verify model files."),
}


class _Commands(click.Group):
    """A group that imports a command when it is called, and the one place where errors end."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        home = COMMANDS.get(cmd_name)
        if home is None:
            return None
        return getattr(import_module(f".commands.{home.module}", __package__), home.attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, home.help) for name, home in COMMANDS.items()])

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run, and end the process with the right code."""
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **extra)
        try:
            code: object = super().main(*args, standalone_mode=False, **extra)
            sys.stdout.flush()
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(EXIT_USAGE)
        except click.ClickException as error:
            click.echo(f"vc: {printable(error.format_message(), lines=True)}", err=True)
            if isinstance(error, click.UsageError) and error.ctx is not None:
                click.echo(f"try: {error.ctx.command_path} --help", err=True)
            sys.exit(EXIT_USAGE)
        except BusError as error:
            click.echo(f"vc: {printable(str(error))}", err=True)
            sys.exit(EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED)
        except (KeyboardInterrupt, click.Abort):
            sys.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            # Whoever read our output has seen enough. Python would complain once more when it flushes.
            sys.stdout = None
            sys.exit(EXIT_FAILED)
        sys.exit(code if isinstance(code, int) else 0)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.version_option(package_name="voicebus", prog_name="vc", message="%(prog)s %(version)s")
def cli() -> None:
    """Speak with cloned voices over the voicebus.

    Every command takes --broker and --config. Exit codes: 0 done, 1 failed (one line with a code),
    2 wrong use or configuration.
    """


def main() -> None:
    """Entry point of the console script."""
    cli(prog_name="vc")


if __name__ == "__main__":
    main()
