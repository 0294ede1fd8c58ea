"""A corpus behind a server that fails one request in five; and a run over very many short documents."""

import http.server
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openclimb.cli.main import main as climb
from openclimb.testing.fixtures import make_tiny_workspace
from openclimb.workspace.files import file_checksum

FAILING = 5  # one request in so many
N_FILES = 8
EXPORTED = "100K"  # tokens
MEASURED = """
import resource, sys
from openclimb.cli.main import main
status = main(sys.argv[1:])
own, workers = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(f"peaks {own} {workers}", file=sys.stderr)
sys.exit(status)
"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder with ranges of bytes. One request in FAILING ends in a 503, a 429, a reset or half a body."""

    failing = FAILING
    requests = 0
    rng = random.Random(0)

    def do_GET(self) -> None:
        """Send a file or a part of it, or fail."""
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        status, first, last = 200, 0, len(data) - 1
        if wanted := self.headers.get("Range"):
            low, _, high = wanted.removeprefix("bytes=").partition("-")
            status, first, last = 206, int(low), min(int(high or last), last)
        Handler.requests += 1
        fault = Handler.rng.randrange(4) if self.failing and Handler.requests % self.failing == 0 else -1
        if fault in (0, 1):
            self.send_error((503, 429)[fault])
            return
        if fault == 2:
            self.connection.close()
            return
        self.send_response(status)
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        body = data[first : last + 1]
        self.wfile.write(body[: len(body) // 2] if fault == 3 else body)
        if fault == 3:
            self.connection.close()

    def do_HEAD(self) -> None:
        """Say how long a file is, without failing: what is listed is asked for once."""
        path = Path(self.translate_path(self.path))
        self.send_response(200 if path.is_file() else 404)
        self.send_header("Content-Length", str(path.stat().st_size if path.is_file() else 0))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path, failing: int) -> Iterator[str]:
    """Serve a folder from this process; yield its address."""
    handler = type("One", (Handler,), {"failing": failing, "__init__": _at(folder)})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _at(folder: Path) -> Any:
    def start(self: Handler, *args: Any, **more: Any) -> None:
        http.server.SimpleHTTPRequestHandler.__init__(self, *args, directory=str(folder), **more)

    return start


def behind_a_bad_server(base: Path, corpus: Path, tasks: Path) -> list[dict[str, Any]]:
    """Run and export over a server that fails and over one that does not; compare answers, bytes and seconds."""
    lines = corpus.read_text(encoding="utf-8").splitlines(keepends=True)
    files = base / "files"
    files.mkdir()
    for i in range(N_FILES):
        (files / f"part-{i}.jsonl").write_text("".join(lines[i::N_FILES]), encoding="utf-8")
    made, seconds, asked = {}, {}, {}
    for failing in (0, FAILING):
        Handler.requests = 0
        with serving(files, failing) as address:
            folder = base / f"failing-{failing}"
            paths = [f"{address}/part-{i}.jsonl" for i in range(N_FILES)]
            root = make_tiny_workspace(folder / "run", files, tasks, corpus={"paths": paths})
            began = time.monotonic()
            for command in (
                ["run", str(root), "--quiet"],
                ["export", str(root), "--tokens", EXPORTED, "--out", str(folder / "data"), "--quiet"],
            ):
                if climb(command):
                    raise RuntimeError(f"climb {command[0]} failed")
            seconds[failing], asked[failing] = time.monotonic() - began, Handler.requests
        answer = json.loads((root / "mixture" / "mixture.json").read_text())
        shards = [file_checksum(path) for path in sorted((folder / "data" / "data").iterdir())]
        made[failing] = (answer, shards)
    case = f"a server that fails one request in {FAILING}"
    return [
        {"case": case, "metric": "same answer and shards", "value": int(made[0] == made[FAILING]), "reference": 1},
        {"case": case, "metric": "requests", "value": asked[FAILING], "reference": asked[0]},
        {"case": case, "metric": "seconds", "value": round(seconds[FAILING], 1), "reference": round(seconds[0], 1)},
    ]


def many_documents(base: Path, corpus: Path, tasks: Path, n: int) -> list[dict[str, Any]]:
    """Run with a search of few tiny trials over n short documents; return its seconds and its peak of memory."""
    texts = [json.loads(line)["text"] for line in corpus.read_text(encoding="utf-8").splitlines()]
    words = [word for text in texts for word in text.split()]
    rng = random.Random(0)
    with open(base / "many.jsonl", "w", encoding="utf-8") as file:
        for i in range(n):
            at = rng.randrange(len(words) - 30)
            file.write(json.dumps({"text": f"{i} " + " ".join(words[at : at + rng.randrange(5, 30)])}) + "\n")
    target = {"token_budget": 20 * n}
    root = make_tiny_workspace(base / "run", base / "many.jsonl", tasks, run={"workers": 2}, target=target)
    began = time.monotonic()
    command = [sys.executable, "-c", MEASURED, "run", str(root), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    peaks = [int(each) / 1e3 for each in done.stderr.rsplit("peaks ", 1)[1].split()]
    case = f"{n:,} short documents"
    return [
        {"case": case, "metric": "seconds of the run", "value": round(time.monotonic() - began, 1), "reference": 200},
        {"case": case, "metric": "MB at most, the command", "value": round(peaks[0]), "reference": 700},
        {"case": case, "metric": "MB at most, a worker", "value": round(peaks[1]), "reference": 700},
    ]
