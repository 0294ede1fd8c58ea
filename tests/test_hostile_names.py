"""One set of hostile names through everything that a user opens: terminal, CSV, JSON, card, page, file names."""

import csv
import html.parser
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

import openclimb
from openclimb.cli.main import main
from openclimb.config.schema import TargetSettings
from openclimb.corpus.custom_domains import read_custom
from openclimb.printable import STEERING, one_line, printable, short_names
from openclimb.progress import LiveProgress, PlainProgress
from openclimb.report.charts import _labels
from openclimb.testing.fixtures import make_tiny_tasks, make_tiny_workspace
from openclimb.workspace.files import file_names, read_json
from openclimb.workspace.tables import csv_text, read_rows
from openclimb.workspace.trials import Trial

NAMES = [
    '=HYPERLINK("http://x","y")',
    "<img src=x onerror=alert(1)>",
    '"></td><script>alert(1)</script>',
    "[click](javascript:alert(1))",
    "![i](http://x/i.png) www.x.org",
    "a|b",
    "two\nlines\tand \x1b[31mred\x1b]0;title\x07",
    "c1 \x9b31m \x7f",
    "right\u202eleft",
    "../../etc/passwd",
    "CON",
    "dot.",
    "long " * 60 + "a",
    "long " * 60 + "b",
    "@SUM(1)",
    "+1",
    "`ticks` _em_ **strong** ~~gone~~ &amp; $x$",
    "[/red] [bold]",
]
TASKS = ["=1+1 <img src=x onerror=alert(1)> \x1b[31m", "|`t`\n\u202e[x](y)"]
COMMANDS = ("plan", "run", "status", "best", "check", "report")


def score(trial: Trial, _folder: Path) -> dict[str, float]:
    """An objective whose tasks have hostile names."""
    first, second = sum(weight**0.5 for weight in trial.weights), trial.weights[0] + 1e-3 * (trial.seed % 7)
    return dict(zip(TASKS, (first, second), strict=True))


@dataclass(frozen=True)
class Opened:
    """What the user opens: the workspace, the exported dataset, and what the commands printed."""

    root: Path
    out: Path
    printed: dict[str, str]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path) -> Opened:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "docs").mkdir()
    lines = [json.loads(line)["text"] for line in tiny_corpus.read_text().splitlines()][:180]
    rows = [json.dumps({"text": text, "kind": NAMES[i % len(NAMES)]}) + "\n" for i, text in enumerate(lines)]
    for name, part in (("=docs <b>\x1b[31m\u202e.jsonl", rows[::2]), ("`a`|b\n.jsonl", rows[1::2])):
        (folder / "docs" / name).write_text("".join(part))
    (folder / "docs" / "left\x1b[31m\nout.pdf").write_text("no document")
    tasks = make_tiny_tasks(folder / "tasks", Path(__file__).parent / "data" / "passages.jsonl")
    for path, name in zip(sorted(tasks.iterdir()), TASKS, strict=True):
        path.rename(tasks / f"{name}.jsonl")
    changes: dict[str, dict[str, object]] = {
        "corpus": {"domains": "column:kind"},
        "objective": {"kind": f"{__name__}:score"},
        "search": {"trials": [4], "predictor": "ridge"},
        "target": {"token_budget": 40_000},
        "domains": {"min_share": 0.0},
    }
    root, out = make_tiny_workspace(folder / "run", folder / "docs", tasks, **changes), folder / "out"
    printed = {}
    with pytest.MonkeyPatch.context() as patch:
        for command in (*COMMANDS, "export"):
            more = ["--tokens", "20K", "--out", str(out)] if command == "export" else []
            with open(folder / "printed", "w+", encoding="utf-8") as stream:
                patch.setattr("sys.stdout", stream)
                patch.setattr("sys.stderr", stream)
                status = main([command, str(root), *more])
                patch.undo()
                stream.seek(0)
                printed[command] = stream.read()
            assert status == 0, printed[command]
    return Opened(root, out, printed)


@pytest.mark.parametrize("command", [*COMMANDS, "export"])
def test_nothing_steers_the_terminal(opened: Opened, command: str) -> None:
    printed = opened.printed[command]
    assert not STEERING.search(printed)
    assert "\nlines" not in printed
    assert "\nout.pdf" not in printed
    if command in ("run", "best", "export"):
        assert "two\\nlines\\tand \\x1b[31mred" in printed
        assert "right\\u202eleft" in printed
        assert max(map(len, printed.splitlines())) < 240
        assert len({line for line in printed.splitlines() if line.startswith("long ")}) == 2
    if command == "plan":
        assert "left\\x1b[31m\\nout.pdf" in printed
        assert one_line(TASKS[1]) in printed


def test_progress_and_errors_steer_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in NAMES:
        plain = PlainProgress()
        plain.start("tasks")
        plain.note(name)
        plain.finish(name)
        live = LiveProgress()
        live.start("tasks")
        live.note(name)
        live.finish(name)
        live.close()
        main(["plan", str(tmp_path / name.replace("/", "-")[:200])])
    said = capsys.readouterr()
    assert "error: " in said.err
    assert not STEERING.search(said.err.replace("\r", ""))
    assert "[/red] [bold]" in said.err


def test_no_cell_of_a_table_is_a_formula_and_every_name_comes_back(opened: Opened, tmp_path: Path) -> None:
    found = [*opened.root.glob("*/*.csv"), *opened.out.glob("*.csv")]
    assert {path.name for path in found} >= {"domains.csv", "mixture.csv"}
    for path in found:
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.reader(file):
                risky = [cell for cell in row if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]
                assert not [cell for cell in risky if not re.fullmatch(r"[+-][\d.e-]+", cell)], path  # but numbers
    assert sorted(row["name"] for row in read_rows(opened.root / "domains" / "domains.csv")) == sorted(NAMES)
    assert sorted(row["domain"] for row in read_rows(opened.out / "mixture.csv")) == sorted(NAMES)
    (tmp_path / "domains.csv").write_text(csv_text(("name", "tokens"), [(name, 1000) for name in NAMES]))
    assert [one.name for one in read_custom(tmp_path / "domains.csv", TargetSettings())] == NAMES


def test_json_has_the_names_as_they_are(opened: Opened) -> None:
    for path in (opened.root / "mixture" / "mixture.json", opened.out / "mixture.json"):
        assert sorted(row["name"] for row in read_json(path)["domains"]) == sorted(NAMES)
    answer = openclimb.open(opened.root).mixture()
    assert set(answer.mixtures[0].report.tasks) == set(TASKS)


def test_the_card_has_no_markup_of_a_name(opened: Opened) -> None:
    import yaml
    from markdown_it import MarkdownIt

    card = (opened.out / "README.md").read_text(encoding="utf-8")
    assert not STEERING.search(card)
    _, front, body = card.split("---\n", 2)
    assert set(yaml.safe_load(front)) == {"tags", "size_categories", "configs"}
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    inside = [inner for token in tokens for inner in token.children or ()]
    kinds = {token.type for token in [*tokens, *inside]}
    assert not kinds & {"link_open", "image", "html_inline", "html_block", "em_open", "s_open"}
    begin = [i for i, token in enumerate(tokens) if token.type == "tr_open"]
    rows = [[one.content for one in tokens[i:] if one.type == "inline"][:6] for i in begin]
    wanted = {" ".join(printable(name).split()) for name in NAMES}
    texts = {"".join(one.content for one in token.children or ()) for token in tokens if token.type == "inline"}
    assert wanted <= texts
    assert len(rows) >= len(NAMES)
    assert "http://" not in body.replace("http\\://", "")  # nor what GitHub makes a link by itself
    assert "www.x" not in body


class Page(html.parser.HTMLParser):
    """The elements of a page with their attributes, and its text outside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.text: list[str] = []
        self.data: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attributes)))
        self.inside = tag

    def handle_endtag(self, _tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        (self.data if self.inside in ("script", "style") else self.text).append(data)


def test_no_element_of_the_page_comes_from_a_name(opened: Opened, tmp_path: Path) -> None:
    text = (opened.root / "report" / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "img" not in {tag for tag, _ in page.elements}
    assert not [names for _, names in page.elements if any(name.startswith("on") for name in names)]
    scripts = sum(tag == "script" for tag, _ in page.elements)
    assert scripts == 3  # the charting library, the figures, what draws them
    assert "<script>alert" not in text
    shown = "".join(page.text)
    assert not STEERING.search(shown)
    for name in (*NAMES, *TASKS):
        assert printable(name) in shown
    figures = json.loads(next(one for one in page.data if one.startswith('{"')))
    found = next(trace for trace in figures["weights"]["data"] if trace.get("name") == "found")
    assert len(set(found["y"])) == len(NAMES)  # two long names do not share a place on the axis
    assert not any("<" in label for label in found["y"])


def test_files_stay_in_their_folder_and_have_names_for_every_system(opened: Opened, tmp_path: Path) -> None:
    names = file_names(NAMES)
    assert len({name.lower() for name in names}) == len(NAMES)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name)
        assert not name.endswith(".")
        assert not re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name)
    for path in (*opened.out.rglob("*"), *opened.root.glob("tokens/*"), *opened.root.glob("*/*.csv")):
        assert re.fullmatch(r"[A-Za-z0-9._-]+", path.name), path
    packed = {path.name for path in (opened.root / "tokens" / "tasks").iterdir()}
    assert packed >= {f"{name}.npz" for name in TASKS}  # as the user's own files, which are named so
    written = {path.name for path in opened.root.parent.iterdir()}
    assert written == {"docs", "tasks", "run", "out", "printed"}
    out = tmp_path / "out"
    openclimb.open(opened.root).export(5_000, out, "megatron", by_domain=True)
    line = (out / "megatron.txt").read_text()
    assert re.fullmatch(r"--data-path( [0-9.e-]+ data/[A-Za-z0-9._-]+/shard-[0-9]{5}-of-[0-9]{5})+\n", line)


def test_short_names_stay_different() -> None:
    assert short_names(["a" * 300, "a" * 299 + "b", "c"]) != short_names(["a" * 300, "a" * 300, "c"])
    assert len(set(short_names([*NAMES, "x" * 99 + "y" + "x" * 99, "x" * 100 + "y" + "x" * 98]))) == len(NAMES) + 2
    assert max(map(len, short_names(NAMES))) < 70
    assert len(set(_labels(NAMES))) == len(NAMES)


def test_a_report_is_made_of_hostile_validation_and_failures_too(opened: Opened, tmp_path: Path) -> None:
    root = shutil.copytree(opened.root, tmp_path / "run")
    folder = root / "trials" / "0001"
    (folder / "scores.json").unlink()
    message = "\n".join(NAMES)
    (folder / "failure.json").write_text(json.dumps({"message": message, "attempts": 2}))
    page = Page(openclimb.open(root).report().read_text(encoding="utf-8"))
    assert "img" not in {tag for tag, _ in page.elements}
    assert printable(NAMES[6]) in "".join(page.text)
