"""Bad settings, inputs and calls: each a command that must end in an `error:` and a `fix:` line, and lose nothing."""

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import openclimb
from openclimb.cli.main import main
from openclimb.testing.fixtures import make_tiny_workspace

DOMAINS = "name,tokens\nweb,1000000\ncode,400000\nbooks,200000\n"
RATIOS = "run,web,code,books\na,0.5,0.3,0.2\nb,0.2,0.5,0.3\n"
METRICS = "run,piqa\na,0.5\nb,0.6\n"


@dataclass(frozen=True)
class Ground:
    """Where a case works: a folder of its own, a small corpus, its tasks, and a finished workspace that stays as it
    is."""

    folder: Path
    corpus: Path
    tasks: Path
    finished: Path

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def workspace(self, paths: Path | None = None, tasks: Path | None = None, /, **changes: dict[str, object]) -> Path:
        return make_tiny_workspace(self.folder / "run", paths or self.corpus, tasks or self.tasks, **changes)

    def by_hand(self, n: int = 2) -> Path:
        """Return a workspace of three domains given by hand, with n trials that wait for scores."""
        table = self.write("domains.csv", DOMAINS)
        root = self.folder / "hand"
        if main(["init", str(root), "--domains-file", str(table), "--target-tokens", "1M"]):
            raise RuntimeError("no workspace of domains by hand was made")
        if n:
            openclimb.open(root).ask(n)
        return root

    def copy(self) -> Path:
        return Path(shutil.copytree(self.finished, self.folder / "copy"))


@dataclass(frozen=True)
class Case:
    """`build` prepares the fault and returns the commands; the last of them must complain."""

    kind: str
    name: str
    build: Callable[[Ground], list[list[str]]]


def all_cases() -> list[Case]:
    """Return every case."""
    return [*_set_at_init(), *_toml(), *_corpora(), *_tasks(), *_tells(), *_imports(), *_calls()]


SETTINGS = (
    "proxy.learning_rate=nan",
    "proxy.learning_rate=inf",
    "proxy.learning_rate=-1",
    "proxy.width=0",
    "proxy.width=100000000000",
    "proxy.heads=5",
    "proxy.size=7M",
    "proxy.token_budget=-5",
    "proxy.token_budget=lots",
    "proxy.batch=1.5",
    "target.token_budget=0",
    "target.max_repetitions=inf",
    "tokens.heldout=1.5",
    "tokens.heldout=nan",
    "tokens.vocab_size=10",
    "clusters.k=-3",
    "embed.embedder=minilm",
    "search.trials=[]",
    "search.trials=[8,-1]",
    "search.trials=many",
    "search.proposer=climbs",
    "search.predictor=none.such:thing",
    "selection.seeds=0",
    "tasks.metric=f1",
    "tasks.weighting=most",
    "run.device=tpu",
    "run.workers=-1",
    "corpus.max_rejected=-1",
    "corpus.domains=column",
    "proxi.width=64",
    "proxy.widht=64",
    "width=64",
    "proxy.width",
    "constraints.cap={web = 2.0}",
    "tasks.weights={piqa = -1}",
)


def _set_at_init() -> list[Case]:
    def build(value: str) -> Callable[[Ground], list[list[str]]]:
        return lambda ground: [
            ["init", str(ground.folder / "new"), "--corpus", str(ground.corpus), "--tasks", f"{ground.tasks}/*.jsonl",
             "--scale", "demo", "--set", value],
            ["plan", str(ground.folder / "new")],  # what one setting says of another
        ]  # fmt: skip

    return [Case("setting", value, build(value)) for value in SETTINGS]


TOMLS: dict[str, Callable[[str], str | bytes]] = {
    "empty": lambda _: "",
    "not TOML": lambda text: text.replace("[proxy]", "[proxy"),
    "a key twice": lambda text: text.replace("[proxy]", "[proxy]\nwidth = 8\nwidth = 16"),
    "a section twice": lambda text: text + "\n[proxy]\nwidth = 8\n",
    "binary": lambda text: b"\x00\xff\xfe" + text.encode(),
    "a list for a number": lambda text: text.replace("width = 32", "width = [32]"),
    "a text for a number": lambda text: text.replace("width = 32", 'width = "wide"'),
    "a table for a number": lambda text: text.replace("width = 32", "width = {a = 1}"),
    "true for a number": lambda text: text.replace("width = 32", "width = true"),
    "NaN": lambda text: text.replace("min_share = 0.01", "min_share = nan"),
    "a seed below zero": lambda text: text.replace("seed = 0", "seed = -1", 1),
    "a seed beyond 64 bits": lambda text: text.replace("seed = 0", f"seed = {2**70}", 1),
    "an unknown section": lambda text: text + "\n[proxies]\nwidth = 8\n",
    "a format of the future": lambda text: text.replace("format = 2", "format = 99"),
    "an unknown scale": lambda text: text.replace('scale = "demo"', 'scale = "dmeo"'),
    "a task that is none in the weights": lambda text: text.replace("[tasks]", "[tasks]\nweights = {chess = 1.0}"),
    "a domain that is none in the caps": lambda text: text + "\n[constraints]\ncap = {nowhere = 0.5}\n",
}


def _toml() -> list[Case]:
    def build(change: Callable[[str], str | bytes]) -> Callable[[Ground], list[list[str]]]:
        def made(ground: Ground) -> list[list[str]]:
            root = ground.workspace()
            found = change((root / "climb.toml").read_text())
            (root / "climb.toml").write_bytes(found.encode() if isinstance(found, str) else found)
            return [["plan", str(root)], ["run", str(root), "--quiet"]]

        return made

    return [Case("climb.toml", name, build(change)) for name, change in TOMLS.items()]


LINE = json.dumps({"text": "Some words that make a document, and a few more of them."}) + "\n"
CORPORA: dict[str, tuple[str, bytes]] = {
    "no file": ("other.txt.none", b""),
    "an empty file": ("c.jsonl", b""),
    "only empty documents": ("c.jsonl", b'{"text": ""}\n' * 50),
    "one document": ("c.jsonl", LINE.encode()),
    "no such column": ("c.jsonl", b'{"body": "words"}\n' * 50),
    "numbers for texts": ("c.jsonl", b'{"text": 12}\n' * 200),
    "token ids for texts": ("c.jsonl", b'{"text": [1, 2, 3]}\n' * 200),
    "damaged lines": ("c.jsonl", b'{"text": "cut' * 1 + b"\n" + b'{"text": \n' * 300),
    "binary": ("c.jsonl", bytes(range(256)) * 200),
    "a gzip that is cut": ("c.jsonl.gz", gzip.compress(LINE.encode() * 5000)[:-100]),
    "a gzip that is none": ("c.jsonl.gz", LINE.encode() * 50),
    "a zstd that is none": ("c.jsonl.zst", LINE.encode() * 50),
    "a Parquet that is none": ("c.parquet", LINE.encode() * 50),
    "an empty Parquet": ("c.parquet", b""),
}


def _corpora() -> list[Case]:
    def build(name: str, content: bytes) -> Callable[[Ground], list[list[str]]]:
        def made(ground: Ground) -> list[list[str]]:
            path = ground.write(name, content)
            root = ground.workspace(path if not name.endswith(".none") else ground.folder / "nothing-*.jsonl")
            return [["run", str(root), "--quiet"]]

        return made

    def at(paths: str) -> Callable[[Ground], list[list[str]]]:
        return lambda ground: [["plan", str(ground.workspace(corpus={"paths": [paths]}))]]

    def column(domains: str) -> Callable[[Ground], list[list[str]]]:
        return lambda ground: [["run", str(ground.workspace(corpus={"domains": domains})), "--quiet"]]

    return [
        *(Case("corpus", name, build(*found)) for name, found in CORPORA.items()),
        Case("corpus", "a server that is not there", at("http://127.0.0.1:9/c.jsonl")),
        Case("corpus", "a store that is none", at("nostore://bucket/c.jsonl")),
        Case("corpus", "a folder without files", lambda ground: at(str(ground.write("e/.keep", "").parent))(ground)),
        Case("corpus", "no such domain column", column("column:topic")),
        Case("corpus", "every document a domain", column("column:text")),
    ]


TASKS: dict[str, str | bytes] = {
    "empty": "",
    "not JSON": "{'context': 'a'}\n",
    "no options": '{"context": "a", "gold": 0}\n',
    "gold out of range": '{"context": "a", "options": ["b", "c"], "gold": 7}\n',
    "gold is a text": '{"context": "a", "options": ["b", "c"], "gold": "b"}\n',
    "options are numbers": '{"context": "a", "options": [1, 2], "gold": 0}\n',
    "a list": "[1, 2]\n",
    "binary": bytes(range(256)),
    "an empty option": '{"context": "a", "options": ["", "c"], "gold": 0}\n',
}


def _tasks() -> list[Case]:
    def build(content: str | bytes) -> Callable[[Ground], list[list[str]]]:
        def made(ground: Ground) -> list[list[str]]:
            folder = ground.write("tasks/bad.jsonl", content).parent
            return [["plan", str(ground.workspace(ground.corpus, folder))]]

        return made

    def none(ground: Ground) -> list[list[str]]:
        return [["plan", str(ground.workspace(ground.corpus, ground.folder / "no-tasks"))]]

    return [*(Case("tasks", name, build(content)) for name, content in TASKS.items()), Case("tasks", "no file", none)]


TELLS: dict[str, str | bytes] = {
    "not JSON": "piqa: 0.5",
    "empty": "",
    "a list": "[0.5]",
    "no score": "{}",
    "NaN": '{"piqa": NaN}',
    "infinity": '{"piqa": 1e999}',
    "a text": '{"piqa": "0.5"}',
    "true": '{"piqa": true}',
    "null": '{"piqa": null}',
    "a list of scores": '{"piqa": [0.5]}',
    "an empty name": '{"": 0.5}',
    "binary": b"\xff\x00\xfe",
}


def _tells() -> list[Case]:
    def build(content: str | bytes) -> Callable[[Ground], list[list[str]]]:
        return lambda ground: [["tell", str(ground.by_hand()), "1", str(ground.write("scores.json", content))]]

    def call(*arguments: str) -> Callable[[Ground], list[list[str]]]:
        def made(ground: Ground) -> list[list[str]]:
            good = ground.write("good.json", '{"piqa": 0.5}')
            root = ground.by_hand()
            return [[each.replace("ROOT", str(root)).replace("GOOD", str(good)) for each in arguments]]

        return made

    calls = {
        "a trial that was never asked for": ("tell", "ROOT", "99", "GOOD"),
        "trial 0": ("tell", "ROOT", "0", "GOOD"),
        "a file that is not there": ("tell", "ROOT", "1", "none.json"),
        "neither scores nor failed": ("tell", "ROOT", "1"),
        "none asked for": ("ask", "ROOT", "-n", "0"),
        "fewer than none": ("ask", "ROOT", "-n", "-4"),
        "a billion asked for": ("ask", "ROOT", "-n", "1000000000"),
        "best of nothing": ("best", "ROOT"),
        "a run without a corpus": ("run", "ROOT", "--quiet"),
    }
    return [
        *(Case("tell", name, build(content)) for name, content in TELLS.items()),
        *(Case("tell", name, call(*arguments)) for name, arguments in calls.items()),
    ]


IMPORTS: dict[str, tuple[str | bytes, str | bytes]] = {
    "no rows": ("run,web,code,books\n", METRICS),
    "a domain is missing": ("run,web,code\na,0.5,0.5\n", METRICS),
    "a domain that is none": ("run,web,code,books,moon\na,0.5,0.3,0.1,0.1\n", METRICS),
    "weights that sum to 2": (RATIOS.replace("0.5,0.3,0.2", "1,0.5,0.5"), METRICS),
    "a weight below zero": (RATIOS.replace("0.5,0.3,0.2", "-0.5,1.3,0.2"), METRICS),
    "NaN weight": (RATIOS.replace("0.5,0.3,0.2", "nan,0.8,0.2"), METRICS),
    "infinite score": (RATIOS, METRICS.replace("0.6", "inf")),
    "a word for a score": (RATIOS, METRICS.replace("0.6", "good")),
    "no metric": (RATIOS, "run\na\nb\n"),
    "no run in both": (RATIOS, METRICS.replace("a,", "x,").replace("b,", "y,")),
    "a run twice": (RATIOS + "a,0.5,0.3,0.2\n", METRICS),
    "ragged rows": (RATIOS + "c,0.5\n", METRICS),
    "binary": (b"\x00\xff\xfe\xfd" * 40, METRICS),
}


def _imports() -> list[Case]:
    def build(ratios: str | bytes, metrics: str | bytes) -> Callable[[Ground], list[list[str]]]:
        def made(ground: Ground) -> list[list[str]]:
            one, other = ground.write("r.csv", ratios), ground.write("m.csv", metrics)
            return [["import", str(ground.by_hand(0)), str(one), str(other)]]

        return made

    return [Case("import", name, build(*tables)) for name, tables in IMPORTS.items()]


CALLS: dict[str, tuple[str, ...]] = {
    "no such command": ("rnu", "DONE"),
    "no such option": ("run", "DONE", "--quite"),
    "no workspace named": ("run",),
    "no such workspace": ("status", "NEW"),
    "a workspace that is a file": ("status", "CORPUS"),
    "a workspace made twice": ("init", "DONE", "--corpus", "CORPUS"),
    "a workspace without corpus": ("init", "NEW"),
    "a workspace on a store": ("init", "s3://bucket/run", "--corpus", "CORPUS"),
    "an unknown stage": ("run", "DONE", "--redo", "clustering"),
    "an export of words": ("export", "DONE", "--tokens", "some", "--out", "NEW"),
    "an export of nothing": ("export", "DONE", "--tokens", "0", "--out", "NEW"),
    "an export of less": ("export", "DONE", "--tokens", "-5", "--out", "NEW"),
    "an export beyond the caps": ("export", "DONE", "--tokens", "900T", "--out", "NEW"),
    "an unknown format": ("export", "DONE", "--tokens", "1K", "--out", "NEW", "--format", "xml"),
    "an export onto something": ("export", "DONE", "--tokens", "1K", "--out", "DONE"),
    "an export before a run": ("export", "FRESH", "--tokens", "1K", "--out", "NEW"),
    "a validation before a run": ("validate", "FRESH"),
    "a billion seeds": ("validate", "DONE", "--seeds", "1000000000"),
    "an unknown baseline": ("validate", "DONE", "--against", "doremy"),
}


def _calls() -> list[Case]:
    def build(arguments: tuple[str, ...]) -> Callable[[Ground], list[list[str]]]:
        def made(ground: Ground) -> list[list[str]]:
            places = {"CORPUS": ground.corpus, "NEW": ground.folder / "new"}
            if "DONE" in arguments:
                places["DONE"] = ground.copy()
            if "FRESH" in arguments:
                places["FRESH"] = ground.workspace()
            return [[str(places.get(each, each)) for each in arguments]]

        return made

    return [Case("command", name, build(arguments)) for name, arguments in CALLS.items()]
