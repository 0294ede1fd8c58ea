"""The command line: the help of every command, usage errors with the nearest name, exit statuses."""

import subprocess
import sys
from pathlib import Path

import pytest

from openclimb import __version__
from openclimb.cli.main import COMMANDS, main
from openclimb.config import registry
from openclimb.config.scales import SCALES


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    error, fix = captured.err.splitlines()
    assert error.startswith("error: climb")
    assert fix.startswith("fix: climb")
    assert fix.endswith(" --help")
    return error


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_does_and_takes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("-h", "--help"):
        assert main([command, option]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert shown.startswith(f"Usage: climb {command} [OPTIONS] ")
        assert COMMANDS[command][1][1:] + "." in shown
        assert "--debug show the traceback of an error" in shown


def test_the_help_lists_the_commands_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:")[2].splitlines()
    assert [line.split()[0] for line in listed if line[2:3].strip()] == list(COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"openclimb {__version__}\n"


def test_choices_are_those_of_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    for command, choices in (
        ("init", f"[{'|'.join(SCALES)}]"),
        ("export", f"[{'|'.join(registry.names('writer'))}]"),
        ("validate", ",".join(registry.names("baseline"))),
    ):
        assert main([command, "--help"]) == 0
        assert choices in "".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "climb: missing command"),
        ("rnu", "climb: no such command 'rnu' (did you mean 'run'?)"),
        ("--verison", "climb: no such option --verison (did you mean '--version'?)"),
        ("run", "climb run: missing argument 'DIR'"),
        ("run d e", "climb run: got unexpected extra argument (e)"),
        ("run d --qiet", "climb run: no such option --qiet (did you mean '--quiet'?)"),
        ("run d -q", "climb run: no such option -q"),
        ("run d --quiet=no", "climb run: option '--quiet' does not take a value"),
        ("export d --tokens 1M", "climb export: missing option '--out'"),
        ("export d --tokens --out x", "climb export: option '--tokens' requires an argument"),
        ("export d --out x --tokens", "climb export: option '--tokens' requires an argument"),
        ("export d --format csv", "climb export: invalid value for '--format': 'csv' is not one of 'parquet'"),
        ("init d --corpus --tasks t", "climb init: option '--corpus' requires an argument"),
        ("init d --scale lap", "climb init: invalid value for '--scale': 'lap' is not one of 'demo', 'laptop'"),
        ("validate d --seeds two", "climb validate: invalid value for '--seeds': 'two' is not a valid integer"),
        ("tell d one", "climb tell: invalid value for 'TRIAL': 'one' is not a valid integer"),
        ("best d --pareto a", "climb best: option '--pareto' requires 2 arguments"),
    ],
)
def test_usage_errors_have_a_fix(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert usage_error(capsys, *arguments.split()).startswith(f"error: {message}")


def test_an_error_shows_its_traceback_only_with_debug(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", str(tmp_path / "none"), str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: there is no evaluation suite at ")
    assert main(["tasks", str(tmp_path / "none"), str(tmp_path), "--debug"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("Traceback (most recent call last):")
    assert "\nerror: there is no evaluation suite at " in told


def test_a_closed_pipe_ends_quietly() -> None:
    command = [sys.executable, "-u", "-c", "import sys, openclimb.cli.main as cli; input(); sys.exit(cli.main(['-h']))"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_nothing_heavy_is_loaded_for_help() -> None:
    code = (
        "import sys, openclimb.cli.main as cli\n"
        "first = [name for name in sys.modules if name.startswith('openclimb.cli.')]\n"
        "assert first == ['openclimb.cli.options', 'openclimb.cli.main'], first\n"
        "assert not any(cli.main([command, '--help']) for command in cli.COMMANDS)\n"
        "heavy = ('numpy', 'torch', 'lightgbm', 'faiss', 'sklearn', 'scipy', 'pyarrow', 'plotly', 'rich')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
