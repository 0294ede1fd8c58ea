"""What the system refuses is said in a sentence: which disk is full, what cannot be written, which limit is met."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from openclimb.cli.main import main
from openclimb.engines.local import LocalEngine
from openclimb.objectives.function import OneByOne
from openclimb.system_errors import is_systems, system_error
from openclimb.testing.fixtures import complaint
from openclimb.workspace.files import atomic
from openclimb.workspace.trials import Proposal, ask, read_trial, trial_folder

LIMITED = """
import resource, sys
from openclimb.cli.main import main
resource.setrlimit(getattr(resource, sys.argv[1]), (int(sys.argv[2]),) * 2)
sys.exit(main(sys.argv[3:]))
"""


def of(number: int, path: Path | None = None) -> OSError:
    return OSError(number, os.strerror(number), str(path)) if path else OSError(number, os.strerror(number))


@pytest.mark.parametrize("where", ["workspace", "output", "temporary folder"])
def test_a_full_disk_is_told_with_whose_it_is_and_what_is_free(where: str, tmp_path: Path) -> None:
    names = {"workspace": "w", "output": "w/out", "temporary folder": "tmp"}  # an output may lie in a workspace
    places = {what: tmp_path / name for what, name in names.items()}
    error = system_error(of(errno.ENOSPC, places[where] / "a" / "b"), places)
    assert error is not None
    assert error.message.startswith(f"no space left to write {places[where]}/a/b: the disk of the {where} (")
    assert error.message.endswith(" MB free")
    assert ("TMPDIR" if where == "temporary folder" else f"for the {where}") in error.fix
    quota = system_error(of(errno.EDQUOT, places[where] / "a"), places)
    assert quota is not None
    assert quota.message.endswith("free; a quota is used up")


@pytest.mark.parametrize(
    ("error", "message", "fix"),
    [
        (of(errno.EROFS, Path("/w/.lock")), "/w/.lock, of the workspace, cannot be written: its", "copy the workspace"),
        (of(errno.EACCES, Path("/w/trials")), "/w/trials, of the workspace, cannot be read or written: perm", "chown"),
        (of(errno.EPERM, Path("/data/a")), "/data/a cannot be read or written: operation not", "chmod"),
        (of(errno.EIO, Path("/data/a")), "/data/a cannot be read or written: input/output error", "disk or network"),
        (of(errno.ENOTDIR, Path("/data/a")), "/data/a cannot be used: not a directory", "correct the path"),
        (of(errno.EMFILE), "too many open files: this process may have ", "ulimit -n"),
        (of(errno.EAGAIN), "the system starts no further process or thread", "ulimit -u"),
        (RuntimeError("can't start new thread"), "the system starts no further process or thread", "ulimit -u"),
        (MemoryError("Unable to allocate 2.5 GiB for an array"), "there is not enough memory for 2.5 GiB", "workers"),
        (RuntimeError("alloc: can't allocate memory: you tried to allocate 64 bytes"), "memory for 64 bytes", "proxy."),
        (FileNotFoundError(2, "No usable temporary directory found in []"), "no folder for temporary", "set TMPDIR"),
    ],
)
def test_each_kind_has_its_sentence(error: Exception, message: str, fix: str) -> None:
    found = system_error(error, {"workspace": Path("/w")})
    assert found is not None
    assert message in found.message
    assert fix in found.fix


def test_what_is_no_fault_of_the_system_is_left_to_be_found() -> None:
    for error in (RuntimeError("shape mismatch"), ImportError("cannot import name 'x'"), OSError("odd")):
        assert system_error(error, {}) is None
        assert not is_systems(error)


@pytest.mark.parametrize(
    "error",
    [
        of(errno.ENOSPC),
        Exception("No space left on device (os error 28)"),  # tokenizers
        OSError("4096 requested and 512 written"),  # numpy
    ],
)
def test_a_full_disk_keeps_the_name_of_the_file_whatever_library_met_it(error: Exception, tmp_path: Path) -> None:
    def write() -> None:
        with atomic(tmp_path / "a.bin"):
            raise error

    with pytest.raises(OSError, match="No space left") as caught:
        write()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a.bin"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_fails_no_trial(tmp_path: Path) -> None:
    (trial,) = ask(tmp_path, [Proposal("search", 0, (1.0,), 0, "climb")], ["a"], {"token_budget": 1}, "data")
    folder = trial_folder(tmp_path, trial.number)
    with pytest.raises(OSError, match="No space left"):
        OneByOne(full).work(1, LocalEngine(1)).run([folder])
    assert read_trial(folder).attempts == 0


def full(*_: object) -> dict[str, float]:
    raise of(errno.ENOSPC)


def test_a_limit_of_open_files_is_told(finished: Path) -> None:
    command = [sys.executable, "-c", LIMITED, "RLIMIT_NOFILE", "3", "status", str(finished)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "too many open files: this process may have 3" in complaint(done.stderr)


def test_a_full_standard_output_is_told(finished: Path) -> None:
    command = [sys.executable, "-m", "openclimb.cli.main", "status", str(finished)]
    with open("/dev/full", "w") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "no space left" in complaint(done.stderr)


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_workspace_of_another_user_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    assert main(["init", str(tmp_path / "run"), "--corpus", __file__]) == 1
    assert "permission denied" in complaint(capsys.readouterr().err)
