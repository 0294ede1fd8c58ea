"""Stores that fail one request in five, by HTTP and by S3; and a run over very many short documents."""

import gzip
import http.client
import http.server
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from openclimb.cli.main import main as climb
from openclimb.testing.fixtures import make_tiny_workspace
from openclimb.workspace.files import file_checksum

FAILING = 5  # one request in so many
N_FILES = 8
N_SHARDS, S3_TOKENS = 16, 5_000_000
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


S3_FAULTS = ("403", "500", "503", "hang", "cut", "half")
CODES = {"403": "AccessDenied", "500": "InternalError", "503": "SlowDown"}
HANG = 1.0  # seconds until the connection of a request that hangs is closed
OWN = {"connection", "keep-alive", "transfer-encoding", "date", "server"}  # headers that a proxy does not hand on


class Proxy(http.server.ThreadingHTTPServer):
    """Hands requests on to an S3 server. Of each `failing` in a row one fails, which one is drawn; 0: none does.

    It ends in one of `kinds`, each in turn: an error's status; no answer for a second and then none at all; a
    connection that is closed; half a body (of what has none, no answer). Of these only the last reaches the server.
    """

    daemon_threads = True

    def __init__(self, server: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.server, self.failing, self.kinds = server, 0, S3_FAULTS
        self.rng, self.lock = random.Random(0), threading.Lock()
        self.requests, self.unlucky, self.failed = 0, 0, Counter[str]()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fault(self) -> str:
        """Count a request; return how it fails, "" for one that does not."""
        with self.lock:
            place = self.requests % self.failing if self.failing else -1
            self.requests += 1
            if place == 0:
                self.unlucky = self.rng.randrange(self.failing)
            if place < 0 or place != self.unlucky:
                return ""
            kind = self.kinds[self.failed.total() % len(self.kinds)]
            self.failed[kind] += 1
            return kind

    def begin(self, failing: int, seed: int = 0) -> None:
        """Count anew, failing so."""
        with self.lock:
            self.failing, self.requests, self.failed = failing, 0, Counter()
            self.rng = random.Random(seed)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


class _Forward(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _hand_on(self) -> None:
        fault = self.server.fault()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault in CODES:
            text = f"<?xml version='1.0'?><Error><Code>{CODES[fault]}</Code><Message>not now</Message></Error>".encode()
            self._answer(int(fault), {"Content-Type": "application/xml"}, text)
            return
        if fault in ("hang", "cut"):
            time.sleep(HANG if fault == "hang" else 0)
            self._close()
            return
        asked = http.client.HTTPConnection(*self.server.server)
        try:
            asked.request(self.command, self.path, body, dict(self.headers))
            answer = asked.getresponse()
            data = answer.read()
        finally:
            asked.close()
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in OWN}
        self._answer(answer.status, headers, data, half=fault == "half")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _hand_on  # noqa: N815

    def _answer(self, status: int, headers: dict[str, str], data: bytes, half: bool = False) -> None:
        if half and not data:
            self._close()
            return
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if half else data)
        if half:
            self._close()

    def _close(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def s3_server() -> Iterator[Proxy]:
    """Start a server of S3, empty, as a process of its own, and a proxy before it; yield the proxy."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = ("127.0.0.1", free.getsockname()[1])
    command = [sys.executable, "-m", "moto.server", "-H", place[0], "-p", str(place[1])]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    proxy = Proxy(place)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        while True:
            with suppress(OSError), socket.create_connection(place, timeout=1):
                break
            if process.poll() is not None:
                raise RuntimeError("moto_server ended as it started")
            time.sleep(0.1)
        yield proxy
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()
        process.terminate()
        process.wait()


def s3_environment(proxy: Proxy) -> dict[str, str]:
    """Return the variables by which s3fs finds a server, with made-up keys."""
    return {
        "AWS_ENDPOINT_URL": proxy.address,
        "AWS_ACCESS_KEY_ID": "made-up-name",
        "AWS_SECRET_ACCESS_KEY": "made-up-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }


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


def behind_a_bad_s3(base: Path, corpus: Path, tasks: Path, megabytes: int, repeats: int) -> list[dict[str, Any]]:
    """Run and export with corpus and export on S3, in pairs: with a proxy that fails one request in five, and without.

    Compares mixture.json and what was exported, as bytes, and the seconds of all `climb run` and `climb export`.
    """
    files = mixed_shards(base / "files", corpus, megabytes)
    seconds: dict[int, list[float]] = {0: [], FAILING: []}
    asked: dict[int, list[int]] = {0: [], FAILING: []}
    answers = set()
    with s3_server() as proxy:
        environment = {**os.environ, **s3_environment(proxy)}
        import s3fs

        keys = {"key": environment["AWS_ACCESS_KEY_ID"], "secret": environment["AWS_SECRET_ACCESS_KEY"]}
        s3 = s3fs.S3FileSystem(endpoint_url="http://{}:{}".format(*proxy.server), **keys)
        s3.mkdir("bucket")
        s3.put([str(path) for path in files], "bucket/corpus/")
        for i in range(2 * repeats):
            failing = (0, FAILING, FAILING, 0)[i % 4]
            proxy.begin(failing, seed=i)
            changes = {"corpus": {"paths": ["s3://bucket/corpus/*"]}, "target": {"token_budget": S3_TOKENS}}
            root = make_tiny_workspace(base / f"run-{i}", files[0], tasks, run={"workers": 2}, **changes)
            began = time.monotonic()
            for command in (
                ["run", str(root), "--quiet"],
                ["export", str(root), "--tokens", str(S3_TOKENS), "--out", f"s3://bucket/out-{i}", "--quiet"],
            ):
                call = [sys.executable, "-m", "openclimb.cli.main", *command]
                done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise RuntimeError(f"climb {command[0]}, {dict(proxy.failed)}: {done.stderr[-2000:]}")
            seconds[failing].append(time.monotonic() - began)
            asked[failing].append(proxy.requests)
            print(
                f"  {failing=} {seconds[failing][-1]:.1f} s, {proxy.requests} requests, {dict(proxy.failed)}",
                flush=True,
            )
            s3.invalidate_cache()
            names = [name for name in s3.find(f"bucket/out-{i}") if not name.endswith("/record.json")]
            exported = tuple((name.partition("/out-")[2].partition("/")[2], s3.checksum(name)) for name in names)
            answers.add((file_checksum(root / "mixture" / "mixture.json"), exported))
    size = sum(path.stat().st_size for path in files)
    case = f"an S3 that fails one request in {FAILING}"
    ratios = [bad / good for bad, good in zip(seconds[FAILING], seconds[0], strict=True)]
    middle = {failing: round(statistics.median(found), 1) for failing, found in seconds.items()}
    return [
        {"case": case, "metric": f"MB of corpus, in {len(files)} files", "value": round(size / 1e6)},
        {"case": case, "metric": "different answers or exported bytes", "value": len(answers) - 1, "reference": 0},
        {"case": case, "metric": f"seconds, median of {repeats}", "value": middle[FAILING], "reference": middle[0]},
        {"case": case, "metric": "seconds, ratio of pairs, median", "value": round(statistics.median(ratios), 3)},
        {"case": case, "metric": "seconds, ratio of pairs, largest", "value": round(max(ratios), 3)},
        {
            "case": case,
            "metric": "requests, median",
            "value": statistics.median(asked[FAILING]),
            "reference": statistics.median(asked[0]),
        },
    ]


def mixed_shards(folder: Path, corpus: Path, megabytes: int) -> list[Path]:
    """Cut so much of a JSONL corpus into N_SHARDS files, whose formats take turns."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import zstandard

    folder.mkdir()
    shards: list[list[bytes]] = [[] for _ in range(N_SHARDS)]
    left = megabytes * 1_000_000
    with open(corpus, "rb") as file:
        for i, line in enumerate(file):
            shards[i % N_SHARDS].append(line)
            left -= len(line)
            if left <= 0:
                break
    paths = []
    for i, lines in enumerate(shards):
        path = folder / f"part-{i:02d}{('.jsonl', '.jsonl.gz', '.jsonl.zst', '.parquet')[i % 4]}"
        data = b"".join(lines)
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist([json.loads(line) for line in lines]), path, row_group_size=1000)
        elif path.suffix == ".gz":
            path.write_bytes(gzip.compress(data, 6))
        else:
            path.write_bytes(zstandard.compress(data) if path.suffix == ".zst" else data)
        paths.append(path)
    return paths


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
