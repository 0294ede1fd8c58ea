"""The command `climb`: its commands, each imported when it is called, and the only place that catches OpenclimbError.

`main` parses, calls and returns the exit status. What a command does is in the file that COMMANDS names.
"""

import contextlib
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import click

from openclimb import __version__
from openclimb.cli.options import DEBUG, HELP, PLACES
from openclimb.engines import interruption
from openclimb.errors import MissingDependency, OpenclimbError, nearest
from openclimb.masking import replaced, secret_values, without_secrets
from openclimb.printable import printable
from openclimb.system_errors import system_error

COMMANDS = {  # where each stands, so that `climb --help` imports none of them; what it does
    "init": ("init:init", "make a workspace: a folder with a climb.toml"),
    "plan": ("plan_status:plan", "say what a run will do, read, train and cost; changes nothing"),
    "run": ("run_report:run", "do everything; the same command goes on after an interruption"),
    "status": ("plan_status:status", "say what is done, running, stale or failed, and the next command"),
    "check": ("check:check", "compare every file with the checksum of its record; says what is damaged"),
    "report": ("run_report:report", "write report/index.html"),
    "export": ("export:export", "write the dataset in mixture order"),
    "verify": ("verify:verify", "read an exported dataset alone; says whether it is what its card says"),
    "annotate": ("annotate:annotate", "have a sample of the documents rated by a language model, for quality scores"),
    "validate": ("validate:validate", "train the mixture as a target beside others, at equal search compute"),
    "train-quality": ("train_quality:train_quality", "train students of labels, which score documents for quality"),
    "ablate": ("ablate:ablate", "compare settings of the search, one at a time, by fresh trials"),
    "scaling": ("scaling:scaling", "train the mixture and others at several sizes and token budgets"),
    "ask": ("ask_tell:ask", "print mixtures to train elsewhere, as JSON lines"),
    "tell": ("ask_tell:tell", "close a trial with the scores in a JSON file: {task: score}, higher is better"),
    "best": ("best:best", "print the mixture of the best expected score by the trials completed so far"),
    "import": ("ask_tell:import_runs", "make completed trials of runs that were finished elsewhere"),
    "tasks": ("tasks:tasks", "convert an evaluation suite to task files"),
}
UNKNOWN = (
    "nobody foresaw this one: it is a fault of Openclimb or of a function that the settings name",
    "report it with the traceback above, in which secrets are masked, or correct that function",
)


class Commands(click.Group):
    """The commands by name, in the order of COMMANDS."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        place, text = COMMANDS[name]
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(import_module(f"openclimb.cli.{module}"), attribute)
        command.help = text[0].upper() + text[1:] + "."
        return command

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Commands, no_args_is_help=False, context_settings=HELP)
@click.version_option(__version__, message=f"openclimb {__version__}")
def climb() -> None:
    """Find the data mixture to train on, and write it out as a dataset."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 1 error, 2 usage, 75 SIGTERM or SIGUSR1, 130 Ctrl-C.

    After those two signals the states of running trials are kept.
    """
    interruption.catch()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with climb.make_context("climb", list(words)) as context:
            return _invoke(context, words)
    except click.exceptions.Exit as done:  # after --help and --version
        return done.exit_code
    except click.UsageError as error:
        _complain(*_usage(error))
        return 2
    except KeyboardInterrupt:
        print("\nstopped; what is done is kept: run the same command to go on", file=sys.stderr)
        return 130
    except interruption.Interrupted:
        print("\nstopped by a signal; what is done is kept: run the same command to go on", file=sys.stderr)
        return interruption.EXIT_STATUS
    except BrokenPipeError:
        sys.stderr.close()
        return 1


def _invoke(context: click.Context, words: Sequence[str]) -> int:
    try:
        climb.invoke(context)
        sys.stdout.flush()
        return 0
    except (BrokenPipeError, click.ClickException, click.exceptions.Exit):
        raise
    except Exception as error:
        told = _told(error, context)
        if told is None or context.meta.get(DEBUG):
            print(printable(_masked_traceback(error, context, words)), end="", file=sys.stderr)
        return _complain(*((told.message, told.fix) if told else UNKNOWN))


def _masked_traceback(error: Exception, context: click.Context, words: Sequence[str]) -> str:
    """Return the traceback without secrets of addresses, known forms, the command line and the workspace's settings."""
    secrets = secret_values(words)
    if workspace := context.meta.get(PLACES, {}).get("workspace"):
        with contextlib.suppress(Exception):  # settings that cannot be read have no part in this
            from openclimb.config.load import secrets_of
            from openclimb.workspace.records import Workspace

            secrets += secrets_of(Workspace(workspace).config())
    text = "".join(traceback.format_exception(error))
    return without_secrets(replaced(text, sorted(secrets, key=len, reverse=True)))


def _told(error: Exception, context: click.Context) -> OpenclimbError | None:
    """Return an error as one that has a fix; None for one that nobody foresaw."""
    if isinstance(error, OpenclimbError):
        return error
    if isinstance(error, ModuleNotFoundError):
        return MissingDependency(error.name or str(error))
    places = dict(context.meta.get(PLACES, {}))
    with contextlib.suppress(OSError):
        places["temporary folder"] = Path(tempfile.gettempdir())
    return system_error(error, places)


def _usage(error: click.UsageError) -> tuple[str, str]:
    """Return what is wrong with the command line, with the nearest known name, and the command that shows the help."""
    command = error.ctx.command_path if error.ctx else "climb"
    if isinstance(error, click.NoSuchOption) and error.ctx:
        known = {name for parameter in error.ctx.command.get_params(error.ctx) for name in parameter.opts}
        near = nearest(error.option_name, known) if error.option_name.startswith("--") else ""
        message = f"no such option {error.option_name}{near}"
    elif isinstance(error, click.exceptions.NoSuchCommand):
        message = f"no such command '{error.command_name}'{nearest(error.command_name, COMMANDS)}"
    else:
        message = error.format_message().removesuffix(".")
    return f"{command}: {message[0].lower()}{message[1:]}", f"{command} --help"


def _complain(message: str, fix: str) -> int:
    print(f"error: {printable(message)}", file=sys.stderr)
    if fix:
        print(f"fix: {printable(fix)}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
