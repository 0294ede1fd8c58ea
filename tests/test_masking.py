"""Secrets: what is one, and that none of those planted reaches a file, a message or the terminal."""

import contextlib
import http.server
import json
import re
import stat
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from openclimb.cli.main import main
from openclimb.config.load import from_dict, recorded_settings
from openclimb.config.schema import CorpusSettings
from openclimb.corpus.reading.read import read_unit
from openclimb.corpus.reading.units import read_units, survey
from openclimb.engines.local import LocalEngine
from openclimb.errors import InputError
from openclimb.masking import StreamMask, is_secret, masked_words, secret_values, without_secrets
from openclimb.progress import Progress
from openclimb.testing.fixtures import make_tiny_workspace
from openclimb.workspace.context import StageContext
from openclimb.workspace.trials import fail

CANARY = "CANARYvalue"
TRAINER = """
import json, os, pathlib, sys
print("called with", sys.argv, os.environ.get("SERVICE_TOKEN"))
asked = json.loads(pathlib.Path(os.environ["CLIMB_TRIAL"]).read_text())
if asked["trial"] == 2:
    sys.exit("refused: " + " ".join(sys.argv))
pathlib.Path(asked["output"], "scores.json").write_text(json.dumps({"t": asked["mixture"]["a"] ** 0.5}))
"""


@pytest.mark.parametrize(
    ("words", "masked"),
    [
        (["t.py", "--token", "X1234"], ["t.py", "--token", "***"]),
        (["t.py", "--api-key=X1234"], ["t.py", "--api-key=***"]),
        (["env", "HF_TOKEN=X,1234", "N=3"], ["env", "HF_TOKEN=***", "N=3"]),
        (["x", "+trainer.authToken=X1234"], ["x", "+trainer.authToken=***"]),
        (
            ["sh", "-c", "export DB_PASSWORD=X1234; t --key 'X1234 a'"],
            ["sh", "-c", "export DB_PASSWORD=***; t --key '***'"],
        ),
        (["curl", "-H", "Authorization: Bearer X123456789"], ["curl", "-H", "Authorization: Bearer ***"]),
        (["curl", "-u", "me:X1234"], ["curl", "-u", "***"]),
        (["x", '{"secret": "X1234", "n": 3}'], ["x", '{"secret": "***", "n": 3}']),
        (["x", "--to", "https://me:X12@34@host/a?sig=X1234"], ["x", "--to", "https://host/a"]),
        (["x", "hf_X1234567890abcdefgh"], ["x", "***"]),
    ],
)
def test_arguments_that_look_like_secrets_are_masked(words: list[str], masked: list[str]) -> None:
    assert masked_words(words) == masked
    assert all("X1" not in " ".join(masked).replace(value, "") for value in secret_values(words))
    assert secret_values(words)


def test_other_arguments_stay() -> None:
    words = (
        "t.py --token-budget 5M --tokenizer t.json --tokens a.bin --max-token 1e9 --key 12 --sort-key name --lr=3e-4"
    )
    assert masked_words(words.split()) == words.split()
    assert not is_secret("pad_token_id", "x")
    assert is_secret("AWS_SECRET_ACCESS_KEY", "x")
    assert is_secret("aws-access-key-id", "x")


def test_messages_show_no_secret(tmp_path: Path) -> None:
    text = "cannot read https://me:pass@word@host/a?X-Amz-Signature=1"
    assert InputError(text, text).message == InputError("", text).fix == str(InputError(text))
    assert str(InputError(text)) == "cannot read https://host/a" == without_secrets(text)
    (tmp_path / "0001").mkdir()
    fail(tmp_path / "0001", text)
    assert json.loads((tmp_path / "0001" / "failure.json").read_text())["message"] == "cannot read https://host/a"


def test_a_renewed_secret_changes_no_recipe() -> None:
    def recorded(token: str) -> object:
        command = ["python", "t.py", "--token", token]
        config = from_dict({"objective": {"command": command}, "corpus": {"paths": [f"https://h/a.jsonl?s={token}"]}})
        return recorded_settings(config.objective), recorded_settings(config.corpus)["paths"]

    assert recorded("one1") == recorded("two2")
    assert "one1" not in json.dumps(recorded("one1"))


@pytest.fixture
def address(tiny_corpus: Path) -> Iterator[str]:
    """The address of a web server that gives the corpus to who shows a key."""
    data = tiny_corpus.read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.serve(body=False)

        def do_GET(self) -> None:
            self.serve(body=True)

        def serve(self, body: bool) -> None:
            allowed = CANARY in self.path
            self.send_response(200 if allowed else 403)
            self.send_header("Content-Length", str(len(data) if allowed else 0))
            self.end_headers()
            if body and allowed:
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/corpus.jsonl?signature={CANARY}"
    server.shutdown()
    server.server_close()


def leaks(*folders: Path) -> list[str]:
    """Return the files that hold the canary, but for climb.toml."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.name != "climb.toml"]
    return [str(path) for path in files if CANARY.encode() in path.read_bytes() or CANARY in path.name]


def test_no_secret_of_a_command_reaches_a_file_or_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.py").write_text(TRAINER)
    (tmp_path / "domains.csv").write_text("name,tokens\na,1M\nb,2M\n")
    root, script = tmp_path / "run", tmp_path / "train.py"
    command = ["env", f"SERVICE_TOKEN={CANARY}1", sys.executable, str(script), "--password", f"{CANARY}2"]
    command += [f"--api-key={CANARY}3", f"https://me:{CANARY}4@host/x?sig={CANARY}5"]
    words = f"objective.command={json.dumps(command)}"
    settings = ("search.trials=[4]", "selection.finalists=1", "selection.seeds=2", words)
    sets = [part for one in settings for part in ("--set", one)]
    table = str(tmp_path / "domains.csv")
    assert main(["init", str(root), "--domains-file", table, "--target-tokens", "1M", *sets]) == 0
    assert stat.S_IMODE((root / "climb.toml").stat().st_mode) == 0o600
    assert CANARY in (root / "climb.toml").read_text()
    for arguments in (["plan"], ["plan", "--json"], ["run"], ["status", "--json"], ["report"], ["best"], ["check"]):
        assert main([arguments[0], str(root), *arguments[1:]]) == 0
    captured = capfd.readouterr()
    assert "refused: " in captured.err
    assert CANARY not in captured.out + captured.err
    assert "called with" in (root / "trials" / "0001" / "log.txt").read_text()
    assert "--password" in (root / "report" / "index.html").read_text()
    assert leaks(root) == []
    assert main(["init", str(tmp_path / "new"), "--from", str(root), "--set", "tasks.weights={t = 2.0}"]) == 0
    assert leaks(tmp_path / "new") == []


@pytest.mark.slow
def test_no_secret_of_an_address_reaches_a_file_or_the_terminal(
    address: str, tmp_path: Path, tiny_tasks: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root, out = (
        make_tiny_workspace(tmp_path / "run", Path("x"), tiny_tasks, corpus={"paths": [address]}),
        tmp_path / "o",
    )
    for arguments in (["plan"], ["run"], ["status"], ["validate", "--seeds", "2", "--against", "natural"], ["check"]):
        assert main([arguments[0], str(root), *arguments[1:]]) == 0
    assert main(["export", str(root), "--tokens", "50K", "--out", str(out)]) == 0
    broken = root / "climb.toml"
    broken.write_text(broken.read_text().replace("corpus.jsonl?", "none.csvx?"))
    assert main(["run", str(root)]) == 1
    captured = capfd.readouterr()
    assert CANARY not in captured.out + captured.err
    assert leaks(root, out) == []
    assert stat.S_IMODE((root / "climb.toml").stat().st_mode) == 0o600


def test_units_find_the_addresses_that_were_left_out(address: str, tmp_path: Path) -> None:
    settings = CorpusSettings(paths=(address,))
    survey(StageContext(tmp_path, LocalEngine(1), Progress()), settings)
    (named,), (unit,) = read_units(tmp_path), read_units(tmp_path, settings)
    assert (named.path, unit.path, unit.name) == ("", address, "corpus.jsonl")
    assert len(list(read_unit(unit, settings))) > 100


def refuse(texts: Sequence[str]) -> list[float]:
    """A scorer whose errors show what they should not: an address, a token, a whole command."""
    try:
        raise FileNotFoundError(
            2, f"no such key hf_{CANARY}0123456789abcdef", f"s3://me:{CANARY}1@bucket/a?sig={CANARY}2"
        )
    except FileNotFoundError:
        raise subprocess.CalledProcessError(1, ["true", "--password", f"{CANARY}3"]) from None


def test_a_traceback_of_an_error_that_nobody_foresaw_shows_no_secret(
    tiny_tasks: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    two = tmp_path / "two"
    for name in ("a", "b"):
        (two / name).mkdir(parents=True)
        (two / name / "c.jsonl").write_text('{"text": "some words of a document"}\n' * 5)
    changes = {
        "quality": {"scorers": [f"{__name__}:refuse"]},
        "objective": {"command": ["true", "--password", f"{CANARY}3"]},
        "corpus": {"domains": "folders"},
        "run": {"workers": 2},
    }
    root = make_tiny_workspace(tmp_path / "run", two, tiny_tasks, **changes)
    assert main(["run", str(root), "--quiet"]) == 1
    told = capfd.readouterr().err
    assert CANARY not in told
    assert "in refuse" in told
    assert "Command '['true', '--password', '***']' returned non-zero exit status 1" in told
    assert "error: nobody foresaw this one" in told


def leak(_: int) -> None:
    """A function whose error names a signed address, and comes from one with a password in its file name."""
    try:
        open(f"s3://me:{CANARY}1@bucket/a?sig={CANARY}2")  # noqa: SIM115
    except FileNotFoundError as error:
        raise ValueError(f"cannot read https://host/a?sig={CANARY}") from error


def test_an_error_of_a_worker_comes_without_secrets() -> None:
    engine = LocalEngine(2)
    with pytest.raises(ValueError, match="cannot read https://host/a$") as caught:
        list(engine.map(leak, [0, 1, 2]))
    engine.release()
    text = "".join(traceback.format_exception(caught.value))
    assert "in leak" in text
    assert "s3://bucket/a" in text
    assert f"{CANARY}1" not in text.replace("{CANARY}", "")


@hypothesis.given(
    text=st.lists(st.sampled_from(["abcd", "abcdef", "cdxy", "ab", "x", "\n", "cd", "éé"]), max_size=12).map("".join),
    cuts=st.lists(st.integers(0, 40), max_size=6),
)
def test_a_stream_is_masked_wherever_it_is_cut(text: str, cuts: list[int]) -> None:
    secrets = ["abcdef", "abcd", "cdxy", "ééé"]
    data = text.encode()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    mask = StreamMask(secrets)
    written = b""
    for start, end in pairwise(edges):
        written += mask.feed(data[start:end])
        assert not any(value.encode() in written for value in secrets)
    whole = re.sub("abcdef|abcd|cdxy|ééé", "***", text)
    assert (written + mask.rest()).decode() == whole


def test_a_stream_without_secrets_is_passed_on_at_once() -> None:
    assert StreamMask([]).feed(b"abc") == b"abc"
    assert StreamMask(["abcd"]).feed(b"12 % abX") == b"12 % abX"
    assert StreamMask(["abcd"]).feed(b"12 % ab") == b"12 % "
