"""External trainers: a command's protocol, what fails a trial, interruption, and a whole search without a corpus."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import openclimb
from openclimb.cli.main import main
from openclimb.config.schema import ObjectiveSettings, TasksSettings
from openclimb.engines.local import LocalEngine
from openclimb.errors import ConfigError, SearchError
from openclimb.masking import StreamMask
from openclimb.mixture import Domain
from openclimb.objectives.command import _copied
from openclimb.objectives.function import OneByOne
from openclimb.objectives.run import load_score, run_trials
from openclimb.progress import Progress
from openclimb.testing.contracts import check_objective
from openclimb.workspace.trials import Proposal, Trial, ask, read_trial, trial_folder

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
DOMAINS = [Domain("web", 8_000_000), Domain("code", 1_000_000), Domain("books", 1_000_000)]
GOOD = """
import json, os, pathlib
asked = json.loads(pathlib.Path(os.environ["CLIMB_TRIAL"]).read_text())
score = sum(weight ** 0.5 for weight in asked["mixture"].values())
print("trained on", asked["token_budget"], "tokens")
pathlib.Path(asked["output"], "scores.json").write_text(json.dumps({"tasks": score, "seed": asked["seed"] * 0.001}))
"""


def trainer(folder: Path, text: str) -> ObjectiveSettings:
    """Write a trainer; return the settings that run it."""
    (folder / "train.py").write_text(text)
    return ObjectiveSettings(command=(sys.executable, "train.py"), timeout=60.0)


def run(folder: Path, settings: ObjectiveSettings, n: int = 1, tasks: TasksSettings | None = None) -> list[Trial]:
    """Ask for n trials and run them; failed ones are left out."""
    proposals = [Proposal("search", 0, (1 - 0.1 * i, 0.05 * i, 0.05 * i), 7, "climb") for i in range(n)]
    names = [domain.name for domain in DOMAINS]
    asked = ask(folder / "trials", proposals, names, {"token_budget": 2_000_000}, "given")
    objective = OneByOne(load_score(settings, folder, DOMAINS, 40_000_000, None), settings.parallel)
    engine = LocalEngine(1)
    try:
        return run_trials(folder / "trials", asked, objective, tasks or TasksSettings(), "t", engine, Progress())
    finally:
        engine.release()


def test_a_command_is_told_its_trial_and_gives_its_scores(tmp_path: Path) -> None:
    (trial,) = run(tmp_path, trainer(tmp_path, GOOD))
    assert trial.scores == {"tasks": 1.0, "seed": 0.007}
    folder = tmp_path / "trials" / "0001"
    request = json.loads((folder / "request.json").read_text())
    assert request["mixture"] == {"web": 1.0, "code": 0.0, "books": 0.0}
    assert request["repetitions"] == {"web": 5.0, "code": 0.0, "books": 0.0}
    assert request["domains"][1] == {"name": "code", "tokens": 1_000_000}
    assert (request["trial"], request["seed"], request["token_budget"], request["tokens"]) == (1, 7, 2_000_000, None)
    assert "trained on 2000000 tokens" in (folder / "log.txt").read_text()
    assert not (folder / "claim.json").exists()


def test_several_commands_run_at_once(tmp_path: Path) -> None:
    meeting = (
        "import os, pathlib, time\n"
        "pathlib.Path(f'here-{os.getpid()}').touch()\n"
        "while len(list(pathlib.Path().glob('here-*'))) < 3:\n"
        "    time.sleep(0.02)\n"
    )
    settings = trainer(tmp_path, meeting + GOOD)
    settings = ObjectiveSettings(command=settings.command, timeout=60.0, parallel=3)
    assert [trial.number for trial in run(tmp_path, settings, 3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("print('no memory left'); raise SystemExit(3)", "exit status 3; its log ends with:\nno memory left"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9"),
        ("print('done')", "wrote no scores.json into its output folder; its log ends with:\ndone"),
        (GOOD.replace("json.dumps({", "str({"), "scores.json cannot be read"),
        (GOOD.replace('{"tasks": score, "seed": asked["seed"] * 0.001}', "[score]"), "one number a task"),
        (GOOD.replace('{"tasks": score, "seed": asked["seed"] * 0.001}', "{}"), "one number a task"),
        (GOOD.replace('"tasks": score', '"tasks": float("nan")'), "the score of 'tasks' is nan, no finite number"),
        (GOOD.replace('"tasks": score', '"tasks": True'), "the score of 'tasks' is True, no finite number"),
        (GOOD.replace('"tasks": score', '"tasks": "high"'), "the score of 'tasks' is 'high', no finite number"),
    ],
)
def test_what_goes_wrong_fails_the_trial_after_one_retry_and_keeps_its_log(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(SearchError, match="all 1 trials of t failed"):
        run(tmp_path, trainer(tmp_path, text))
    trial = read_trial(tmp_path / "trials" / "0001")
    assert message in trial.failure
    assert (trial.state, trial.attempts) == ("failed", 2)
    log = (tmp_path / "trials" / "0001" / "log.txt").read_text()
    assert "output-1" in log
    assert "output-2" in log


def test_a_second_attempt_may_succeed_and_sees_nothing_of_the_first(tmp_path: Path) -> None:
    once = (
        "import pathlib, json, os, sys\n"
        "if not pathlib.Path('tried').exists():\n"
        "    pathlib.Path('tried').touch()\n"
        "    asked = json.loads(pathlib.Path(os.environ['CLIMB_TRIAL']).read_text())\n"
        "    pathlib.Path(asked['output'], 'scores.json').write_text('{\"tasks\": 99}')\n"
        "    sys.exit(1)\n"
    )
    (trial,) = run(tmp_path, trainer(tmp_path, once + GOOD))
    assert trial.scores["tasks"] == 1.0
    assert trial.attempts == 1


def test_a_trainer_that_is_mended_runs_again(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="all 2 trials") as caught:
        run(tmp_path, trainer(tmp_path, "raise SystemExit(3)"), 2)
    assert "the same command tries them again" in caught.value.fix
    assert len(run(tmp_path, trainer(tmp_path, GOOD), 2)) == 2


def test_a_command_that_takes_too_long_is_killed_with_all_its_processes(tmp_path: Path) -> None:
    slow = (
        "import os, pathlib, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal, time; "
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)'])\n"
        "pathlib.Path('pids').write_text(f'{os.getpid()} {child.pid}')\n"
        "time.sleep(600)\n"
    )
    settings = ObjectiveSettings(command=trainer(tmp_path, slow).command, timeout=4.0)
    with pytest.raises(SearchError, match=r"ran longer than 4 s and was killed"):
        run(tmp_path, settings)
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        wait_for_end(pid)


KILLED = """
import sys
from pathlib import Path
from openclimb.mixture import Domain
from openclimb.objectives.command import Command
from openclimb.testing.fixtures import make_domains, make_trial

domains = make_domains(2)
words = (sys.executable, "train.py", "--token", "CANARYvalue")
Command(words, 60.0, Path.cwd(), tuple(domains), 1000, None)(make_trial(1, domains, (0.5, 0.5), {}), Path("trial"))
"""


def test_a_log_holds_no_secret_while_its_command_runs_nor_after_ours_was_killed(tmp_path: Path) -> None:
    (tmp_path / "trial").mkdir()
    (tmp_path / "train.py").write_text(
        "import os, sys, time\n"
        "print('called with', sys.argv, os.getpid(), flush=True)\n"
        "sys.stdout.write('1 % CANARY')\n"
        "sys.stdout.flush()\n"
        "time.sleep(600)\n"
    )
    ours = subprocess.Popen([sys.executable, "-c", KILLED], cwd=tmp_path)
    log = tmp_path / "trial" / "log.txt"
    try:
        deadline = time.monotonic() + 60
        while not log.is_file() or "1 % " not in log.read_text():
            assert time.monotonic() < deadline
            assert ours.poll() is None
            time.sleep(0.05)
        found = re.search(r"called with \['train.py', '--token', '\*\*\*'\] (\d+)", log.read_text())
        assert found, log.read_text()
    finally:
        ours.kill()
        ours.wait()
    wait_for_end(int(found[1]))
    assert "CANARY" not in log.read_text()


def test_a_process_that_outlives_its_command_and_holds_its_output_is_not_waited_for(tmp_path: Path) -> None:
    fork = (
        "import pathlib, subprocess, sys\n"
        "print('first', flush=True)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "pathlib.Path('pid').write_text(str(child.pid))\n"
    )
    began = time.monotonic()
    try:
        (trial,) = run(tmp_path, trainer(tmp_path, fork + GOOD))
        assert time.monotonic() - began < 30
        os.kill(int((tmp_path / "pid").read_text()), 0)  # it is still there
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert trial.scores["tasks"] == 1.0
    assert "first\ntrained on" in (tmp_path / "trials" / "0001" / "log.txt").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_log_that_cannot_be_written_stops_the_run_and_not_the_command() -> None:
    source, sink = os.pipe()

    def copy() -> None:
        with open("/dev/full", "wb", buffering=0) as log, _copied(source, log, StreamMask([])):
            for _ in range(30):
                os.write(sink, b"x" * 100_000)  # more than a pipe holds: somebody must read it

    with pytest.raises(OSError, match="No space left"):
        copy()
    os.close(sink)
    os.close(source)


def test_much_output_without_a_line_is_kept_whole(tmp_path: Path) -> None:
    many = "import sys\nsys.stdout.write('x' * 3_000_000)\nsys.stdout.flush()\n"
    run(tmp_path, trainer(tmp_path, many + GOOD))
    text = (tmp_path / "trials" / "0001" / "log.txt").read_text()
    assert text.count("x") >= 3_000_000
    assert "trained on" in text


def test_scores_of_other_tasks_fail_their_trial(tmp_path: Path) -> None:
    odd = GOOD.replace('"tasks": score', '("tasks" if asked["trial"] == 1 else "tusks"): score')
    done = run(tmp_path, trainer(tmp_path, odd), 2)
    assert [trial.number for trial in done] == [1]
    assert (
        "a score for 'tusks', which no trial so far has (did you mean 'tasks'?)"
        in read_trial(tmp_path / "trials" / "0002").failure
    )


@pytest.mark.parametrize(
    ("text", "tasks", "message"),
    [
        (GOOD, TasksSettings(weights={"task": 1.0}), "no score for 'task' (did you mean 'tasks'?), which [tasks]"),
        (GOOD, TasksSettings(thresholds={"other": 1.0}), "no score for 'other', which [tasks]"),
    ],
)
def test_tasks_that_the_settings_name_must_have_scores(
    text: str, tasks: TasksSettings, message: str, tmp_path: Path
) -> None:
    with pytest.raises(SearchError) as caught:
        run(tmp_path, trainer(tmp_path, text), tasks=tasks)
    assert message in caught.value.message


def test_a_trial_that_lacks_a_task_of_the_others_fails(tmp_path: Path) -> None:
    odd = GOOD.replace('"seed": asked', '**({} if asked["trial"] == 2 else {"more": 1}), "seed": asked')
    assert [trial.number for trial in run(tmp_path, trainer(tmp_path, odd), 2)] == [1]
    assert "no score for 'more', which the other trials have" in read_trial(tmp_path / "trials" / "0002").failure


def test_settings_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    for settings, message in (
        (ObjectiveSettings(kind="command"), "there is none"),
        (ObjectiveSettings(kind="no_such_module:score"), "cannot be loaded"),
        (ObjectiveSettings(kind="openclimb.workspace.trials:no_such_function"), "cannot be loaded"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_score(settings, tmp_path, DOMAINS, 1, None)
    with pytest.raises(SearchError, match="cannot be started"):
        run(tmp_path, ObjectiveSettings(command=("./no-such-program",)))


def test_the_contract_of_objectives(tmp_path: Path) -> None:
    trainer(tmp_path, GOOD)
    check_objective(command=f"{shlex.quote(sys.executable)} {tmp_path / 'train.py'}")
    check_objective(f"{__name__}:smooth")
    with pytest.raises(AssertionError, match="the same trial"):
        check_objective(f"{__name__}:restless")
    with pytest.raises(AssertionError, match="same tasks"):
        check_objective(f"{__name__}:fickle")


def smooth(trial: Trial, folder: Path) -> dict[str, float]:
    """A sound function of the user's."""
    return {"tasks": sum(weight**0.5 for weight in trial.weights)}


CALLS: list[int] = []


def restless(trial: Trial, folder: Path) -> dict[str, float]:
    """A function that gives the same trial other scores."""
    CALLS.append(trial.number)
    return {"tasks": float(len(CALLS))}


def fickle(trial: Trial, folder: Path) -> dict[str, float]:
    """A function whose tasks depend on the mixture."""
    return {f"task-{trial.weights[0]:.2f}": 1.0}


def failing(trial: Trial, folder: Path) -> dict[str, float]:
    """A function that raises."""
    raise KeyError("no data")


def test_a_function_may_be_the_objective(tmp_path: Path) -> None:
    assert len(run(tmp_path, ObjectiveSettings(kind=f"{__name__}:smooth"), 2)) == 2
    with pytest.raises(SearchError, match="KeyError: 'no data'"):
        run(tmp_path / "other", ObjectiveSettings(kind=f"{__name__}:failing"))


def wait_for_end(pid: int) -> None:
    """Wait until a process is gone or a zombie."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state in "ZX":
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} is still there")


def tutorial_block(beginning: str) -> str:
    """Return the code block of the tutorial that begins so."""
    blocks = TUTORIAL.read_text(encoding="utf-8").split("```")[1::2]
    return next(block.partition("\n")[2] for block in blocks if block.partition("\n")[2].startswith(beginning))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace as the tutorial makes it: domains by hand, and its trainer."""
    table = tmp_path / "domains.csv"
    table.write_text("name,tokens\nweb,800M\ncode,120M\nbooks,60M\n")
    command = f"{shlex.quote(sys.executable)} train.py"
    given = ["--domains-file", str(table), "--target-tokens", "200M", "--scale", "demo"]
    settings = [f"objective.command={command}", "search.trials=[4, 3]", "selection.finalists=1", "selection.seeds=2"]
    sets = [word for one in settings for word in ("--set", one)]
    assert main(["init", str(tmp_path / "run"), *given, *sets]) == 0
    (tmp_path / "run" / "train.py").write_text(tutorial_block("import json, os"))
    return tmp_path / "run"


def test_the_tutorials_trainer_searches_without_a_corpus(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(root)]) == 0
    assert "train.py" in capsys.readouterr().out
    assert main(["run", str(root), "--quiet"]) == 0
    answer = openclimb.open(root).mixture()
    assert sum(row.weight for row in answer.domains) == pytest.approx(1.0)
    assert all(row.weight <= row.cap + 1e-9 for row in answer.domains)
    assert "report items" not in answer.sentence
    assert set(answer.mixtures[0].report.tasks) == {"loss"}
    trials = openclimb.open(root).trials()
    assert len(trials) >= 7 + 2 * 2
    capsys.readouterr()
    assert main(["status", str(root)]) == 0
    said = capsys.readouterr().out
    assert "mixture       done" in said
    assert "3 given by hand" in said
    page = openclimb.open(root).report().read_text()
    assert "score ↑" in page
    assert main(["run", str(root), "--quiet"]) == 0
    assert len(openclimb.open(root).trials()) == len(trials)


def test_a_workspace_may_be_named_by_a_relative_path(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    assert main(["run", root.name, "--quiet"]) == 0
    assert all(trial.attempts == 0 for trial in openclimb.open(root).trials())


def test_what_was_scored_elsewhere_is_not_said_to_be_on_items(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(root), "--quiet"]) == 0
    page = openclimb.open(root).report().read_text()
    for text in (capsys.readouterr().out, page):
        assert "report items" not in text
        assert "the search never saw" not in text
    assert "Beside the baselines" in page


def test_failed_trials_are_tried_again_when_that_is_asked_for(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (root / "train.py").read_text()
    fault = "import json, os\nif json.load(open(os.environ['CLIMB_TRIAL']))['trial'] == 2:\n    raise SystemExit(3)\n"
    (root / "train.py").write_text(fault + text)
    assert main(["run", str(root), "--quiet"]) == 0
    before = openclimb.open(root).trials()
    assert [trial.number for trial in before if trial.state == "failed"] == [2]
    (root / "train.py").write_text(text)
    again = ["run", str(root), "--redo", "mixture"]
    assert main([*again, "--quiet"]) == 0
    assert openclimb.open(root).trials() == before  # the search went on without it, and does so again
    capsys.readouterr()
    assert main([*again, "--retry"]) == 0
    assert "failed trials that are tried again: 2\n" in capsys.readouterr().err
    assert {trial.state for trial in openclimb.open(root).trials()} == {"done"}
    assert main(["run", str(root), "--retry", "--quiet"]) == 0


def test_another_command_is_another_trial_and_makes_the_answer_stale(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (first,) = openclimb.open(root).ask(1)
    path = root / "climb.toml"
    text = path.read_text()
    path.write_text(text.replace('"train.py"', '"train.py", "--more"'))
    (second,) = openclimb.open(root).ask(1)
    assert first.identity != second.identity
    path.write_text(text.replace("timeout = 0.0", "timeout = 50.0").replace("parallel = 1", "parallel = 2"))
    assert main(["run", str(root), "--quiet"]) == 0
    path.write_text(path.read_text().replace('"train.py"', '"train.py", "--more"'))
    assert main(["run", str(root), "--quiet"]) == 1
    assert "objective.command" in capsys.readouterr().err


def test_a_command_that_the_settings_do_not_use_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = root / "climb.toml"
    path.write_text(path.read_text().replace('kind = "auto"', f'kind = "{__name__}:smooth"'))
    assert main(["run", str(root), "--quiet"]) == 1
    assert "does not use it" in capsys.readouterr().err
    path.write_text(path.read_text().replace(f'kind = "{__name__}:smooth"', 'kind = "proxy"'))
    assert main(["run", str(root), "--quiet"]) == 1
    assert "has no corpus" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "parallel"),
    [
        (signal.SIGTERM, 2),
        pytest.param(signal.SIGTERM, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, 2, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_ends_its_commands_and_goes_on(root: Path, number: int, parallel: int) -> None:
    trainer_text = (root / "train.py").read_text()
    (root / "train.py").write_text(
        "import os, pathlib, time\n"
        "if not pathlib.Path('go').exists():\n"
        "    pathlib.Path(f'pid-{os.getpid()}').touch()\n"
        "    time.sleep(600)\n" + trainer_text
    )
    path = root / "climb.toml"
    path.write_text(path.read_text().replace("parallel = 1", f"parallel = {parallel}"))
    with subprocess.Popen([sys.executable, "-m", "openclimb.cli.main", "run", str(root), "--quiet"]) as process:
        deadline = time.monotonic() + 300
        while len(pids := [int(p.name[4:]) for p in root.glob("pid-*")]) < parallel:
            if time.monotonic() > deadline:
                process.kill()
                pytest.fail("the commands did not start")
            time.sleep(0.05)
        process.send_signal(number)
        status = process.wait(100)
    assert status == (75 if number == signal.SIGTERM else -number)
    for pid in pids:
        wait_for_end(pid)
    assert not [trial for trial in openclimb.open(root).trials() if trial.failure or trial.scores]
    (root / "go").touch()
    assert main(["run", str(root), "--quiet"]) == 0
    assert {trial.state for trial in openclimb.open(root).trials()} == {"done"}


def test_a_corpus_with_a_command_gives_it_the_tokens(tiny_corpus: Path, tiny_tasks: Path, tmp_path: Path) -> None:
    from openclimb.testing.fixtures import make_tiny_workspace

    text = (
        "import json, os, pathlib\n"
        "asked = json.loads(pathlib.Path(os.environ['CLIMB_TRIAL']).read_text())\n"
        "tokens = pathlib.Path(asked['tokens'])\n"
        "facts = json.loads((tokens / 'domains.json').read_text())\n"
        "assert {row['name'] for row in facts['domains']} == set(asked['mixture'])\n"
        "score = max(asked['mixture'].values())\n"
        "pathlib.Path(asked['output'], 'scores.json').write_text(json.dumps({'largest': score}))\n"
    )
    (tmp_path / "train.py").write_text(text)
    command = [sys.executable, str(tmp_path / "train.py")]
    root = make_tiny_workspace(tmp_path / "run", tiny_corpus, tiny_tasks, objective={"command": command})
    path = root / "climb.toml"
    path.write_text(path.read_text().replace(f'paths = ["{tiny_tasks}/*.jsonl"]', "paths = []"))
    assert openclimb.open(root).config.tasks.paths == ()
    assert main(["plan", str(root)]) == 0
    assert main(["run", str(root), "--quiet"]) == 0
    assert openclimb.open(root).mixture().objective.tasks == {"largest": 1.0}


def test_a_command_is_cut_into_words_as_a_shell_would(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = openclimb.open(root).config
    assert config.objective.command == (sys.executable, "train.py")
    assert main(["init", str(root.parent / "b"), "--corpus", "a", "--set", "objective.command=python 'tr"]) == 1
    assert "cannot be cut into words" in capsys.readouterr().err
    assert os.environ.get("CLIMB_TRIAL") is None
    assert trial_folder(root, 3).name == "0003"
