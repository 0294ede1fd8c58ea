"""Items of tasks in the corpus: found wherever they were planted, the same however the work is cut; then left out."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import openclimb
from openclimb.cli.plan_text import plan_text
from openclimb.cli.planning import plan, status
from openclimb.cli.text import status_text
from openclimb.clustering.domains import make_domains
from openclimb.clustering.fit import fit
from openclimb.clustering.label import label
from openclimb.config.schema import (
    ClustersSettings,
    Config,
    CorpusSettings,
    DomainsSettings,
    EmbedSettings,
    QualitySettings,
    TargetSettings,
    TasksSettings,
    TokensSettings,
)
from openclimb.corpus.contamination import contaminated_items, overlap_sentence, task_overlap
from openclimb.corpus.reading.read import Unit
from openclimb.corpus.select_documents import DocumentChoice
from openclimb.engines.local import LocalEngine
from openclimb.errors import InputError
from openclimb.progress import Progress
from openclimb.quality.contamination import find_contamination, item_text, make_index
from openclimb.recipes import recipes
from openclimb.report.page import build_report
from openclimb.tasks.items import pack_tasks, read_items
from openclimb.testing.fixtures import make_tiny_workspace, survey_pieces
from openclimb.workspace.context import StageContext
from openclimb.workspace.tables import read_rows

EMBED, TOKENS = EmbedSettings(embedder="hashing"), TokensSettings(vocab_size=400)
TARGET = TargetSettings(token_budget=100_000)
TABLES = ("items.csv", "tasks.csv", "documents.csv")


@pytest.fixture(scope="module")
def planted(
    texts: list[tuple[str, str]], tiny_tasks: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[int, str]]:
    """A corpus in which every eighth document has an item of a task, in capitals; {line: the task}."""
    items = [(name, item) for name in ("speech", "stories") for item in read_items(str(tiny_tasks / f"{name}.jsonl"))]
    where: dict[int, str] = {}
    lines = []
    for number, (kind, clean) in enumerate(texts):
        text = clean
        if number % 8 == 0:
            name, item = items[number // 8 * 7 % len(items)]
            text = f"{clean[:300]}\n{item_text(item).upper()}\n{clean[300:]}"
            where[number] = name
        lines.append(json.dumps({"text": text, "kind": kind}) + "\n")
    path = tmp_path_factory.mktemp("planted") / "docs.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path, where


@pytest.fixture(scope="module")
def root(planted: tuple[Path, dict[int, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with corpus/ and clusters/."""
    root = tmp_path_factory.mktemp("contamination")
    units = pieces(planted[0], root)
    (root / "clusters").mkdir()
    corpus = CorpusSettings(paths=(str(planted[0]),))
    fit(at(root / "clusters"), units, corpus, EMBED, ClustersSettings(k=6), TOKENS)
    return root


def at(folder: Path, workers: int = 1) -> StageContext:
    return StageContext(folder, LocalEngine(workers), Progress())


def pieces(corpus: Path, root: Path) -> list[Unit]:
    return survey_pieces(CorpusSettings(paths=(str(corpus),)), root / "corpus", 5)


def tasks_of(folder: Path, **more: object) -> TasksSettings:
    return TasksSettings(paths=(f"{folder}/*.jsonl",), **more)  # type: ignore[arg-type]


def looked(
    root: Path, out: Path, corpus: Path, tasks: TasksSettings, *, together: bool = True, workers: int = 1
) -> Path:
    """Label the corpus and look for items, together or one after the other; return the folder of both."""
    units, settings = pieces(corpus, root), CorpusSettings(paths=(str(corpus),))
    for name in ("labels", "contamination"):
        (out / name).mkdir(parents=True, exist_ok=True)
    overlap = make_index(out / "contamination", tasks) if together else None
    labels = at(out / "labels", workers)
    label(labels, units, root / "clusters", settings, EMBED, QualitySettings(), overlap)
    labels.engine.release()
    found = at(out / "contamination", workers)
    facts = find_contamination(found, units, out / "labels", settings, tasks)
    record = {
        "version": 1,
        "settings": {},
        "inputs": {},
        "facts": facts,
        "fingerprint": "",
        "seconds": 0.0,
        "finished": "",
    }
    (out / "record.json").write_text(json.dumps(record))
    found.engine.release()
    return out


@pytest.fixture(scope="module")
def done(
    root: Path, planted: tuple[Path, dict[int, str]], tiny_tasks: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return looked(root, tmp_path_factory.mktemp("done"), planted[0], tasks_of(tiny_tasks))


def tables(folder: Path) -> list[bytes]:
    files = [*TABLES, *(path.name for path in sorted((folder / "contamination").glob("unit-*.parquet")))]
    return [(folder / "contamination" / name).read_bytes() for name in files]


def positions(folder: Path) -> set[int]:
    paths = (folder / "contamination").glob("unit-*.parquet")
    return {place for path in paths for place in pq.read_table(path).column("position").to_pylist()}


def line_starts(corpus: Path) -> list[int]:
    return np.cumsum([0, *map(len, corpus.read_bytes().splitlines(keepends=True))])[:-1].tolist()


def test_what_was_planted_is_found_and_nothing_else(done: Path, planted: tuple[Path, dict[int, str]]) -> None:
    corpus, where = planted
    starts = line_starts(corpus)
    assert positions(done) == {starts[number] for number in where}
    rows = {row["task"]: row for row in read_rows(done / "contamination" / "tasks.csv")}
    for task in ("speech", "stories"):
        assert int(rows[task]["documents"]) == sum(name == task for name in where.values())
    found = sum(int(row["overlap"]) for row in rows.values())
    assert found == len(where)  # each is another item
    assert sum(int(row["report_overlap"]) for row in rows.values()) < found
    places = read_rows(done / "contamination" / "documents.csv")
    assert sum(int(row["documents"]) for row in places) == len(where)


def test_it_is_the_same_in_parallel_and_after_the_label_pass(
    done: Path, root: Path, planted: tuple[Path, dict[int, str]], tiny_tasks: Path, tmp_path: Path
) -> None:
    tasks = tasks_of(tiny_tasks)
    assert tables(looked(root, tmp_path / "two", planted[0], tasks, workers=2)) == tables(done)
    assert tables(looked(root, tmp_path / "after", planted[0], tasks, together=False)) == tables(done)


def test_a_label_pass_that_was_killed_goes_on(
    done: Path, root: Path, planted: tuple[Path, dict[int, str]], tiny_tasks: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    looked(root, out, planted[0], tasks_of(tiny_tasks))
    for name in ("labels/unit-00003.parquet", "labels/unit-00001.parquet", "contamination/unit-00003.parquet"):
        (out / name).unlink()
    assert tables(looked(root, out, planted[0], tasks_of(tiny_tasks))) == tables(done)


def test_contaminated_documents_are_in_no_domain(done: Path, root: Path, planted: tuple[Path, dict[int, str]]) -> None:
    units = pieces(planted[0], root)
    n_documents = {}
    for name, left_out in (("all", ()), ("clean", (done / "contamination",))):
        out = done / name
        out.mkdir()
        make_domains(at(out), root / "clusters", done / "labels", DomainsSettings(), TARGET, 0, left_out)
        rows = read_rows(out / "domains.csv")
        n_documents[name] = sum(int(row["documents"]) for row in rows)
        choice = DocumentChoice(done / "labels", out, 0.05, 0, (1.0,) * (len(rows) + 1), left_out)
        read = {place for unit in units for place in choice.documents(unit)}
        assert bool(read & positions(done)) == (not left_out)
        assert sum(choice.count(unit)[1].sum() for unit in units) == len(read)
    assert n_documents["all"] - n_documents["clean"] == len(positions(done))


def test_items_that_stand_in_the_corpus_are_left_out(done: Path, root: Path, tiny_tasks: Path, tmp_path: Path) -> None:
    tasks = tasks_of(tiny_tasks, contamination="items")
    left_out = contaminated_items(done, tasks)
    assert contaminated_items(done, replace(tasks, contamination="report")) == {}
    tokenizer = root / "clusters" / "tokenizer.json"
    every = pack_tasks(tasks, tokenizer, tmp_path / "every", Progress())
    clean = pack_tasks(tasks, tokenizer, tmp_path / "clean", Progress(), left_out)
    rows = {row["task"]: row for row in read_rows(done / "contamination" / "tasks.csv")}
    for task, row in rows.items():
        assert every[task]["report"] - clean[task]["report"] == int(row["report_overlap"])
        assert sum(every[task].values()) - sum(clean[task].values()) == int(row["overlap"])
    everything = {task: {item.hash for item in read_items(str(tiny_tasks / f"{task}.jsonl"))} for task in rows}
    with pytest.raises(InputError, match="stand in the corpus"):
        pack_tasks(tasks, tokenizer, tmp_path / "none", Progress(), everything)


def test_labels_do_not_depend_on_the_tasks_and_the_search_only_where_something_is_left_out() -> None:
    config = Config(tasks=TasksSettings(paths=("tasks/*.jsonl",)))

    def stale(how: str) -> set[str]:
        changed = replace(config, tasks=replace(config.tasks, contamination=how))
        one, other = recipes(changed, "files", "tasks"), recipes(changed, "files", "other tasks")
        return {stage for stage in one if one[stage].fingerprint != other[stage].fingerprint}

    assert stale("off") == {"tokens", "mixture"}
    assert stale("report") == stale("items") == {"contamination", "tokens", "mixture"}
    assert stale("documents") == {"contamination", "domains", "tokens", "mixture"}
    off = recipes(replace(config, tasks=replace(config.tasks, contamination="off")), "files", "tasks")
    on = recipes(config, "files", "tasks")
    assert "contamination" not in off
    assert all(on[stage].fingerprint == recipe.fingerprint for stage, recipe in off.items())


def test_plan_status_and_report_say_it(
    planted: tuple[Path, dict[int, str]], done: Path, tiny_tasks: Path, tmp_path: Path
) -> None:
    evil = "<img src=x onerror=alert(1)>\x1b[31m"
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    shutil.copy(tiny_tasks / "speech.jsonl", tasks / "speech.jsonl")
    shutil.copy(tiny_tasks / "stories.jsonl", tasks / f"{evil}.jsonl")
    workspace = make_tiny_workspace(tmp_path / "run", planted[0], tasks)
    facts = plan(workspace)
    assert facts["overlap"]["overlap"] == len(planted[1])  # a small corpus is looked at whole
    assert "overlap   of tasks with the corpus (sample of 360 documents)" in plan_text(facts)
    assert status(workspace)["overlap"] == []
    (workspace / "contamination").mkdir()
    for name in TABLES:
        text = (done / "contamination" / name).read_text().replace("stories", evil)
        (workspace / "contamination" / name).write_text(text)
    shutil.copy(done / "record.json", workspace / "contamination" / "record.json")
    rows = task_overlap(workspace)
    assert {row["task"] for row in rows} == {"speech", evil}
    assert overlap_sentence(rows, "report").endswith("they count in the scores.")
    page = build_report(workspace).read_text(encoding="utf-8")
    assert "<h2>Tasks in the corpus</h2>" in page
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    said = status_text(status(workspace))
    assert f"Of {sum(row['report_items'] for row in rows)} report items" in said
    assert "\x1b" not in said


@pytest.mark.slow  # a whole run and its export
def test_a_run_without_contaminated_documents(
    planted: tuple[Path, dict[int, str]], tiny_tasks: Path, tmp_path: Path
) -> None:
    workspace = make_tiny_workspace(tmp_path / "run", planted[0], tiny_tasks, tasks={"contamination": "documents"})
    opened = openclimb.open(workspace)
    opened.run()
    assert opened.export(50_000, tmp_path / "data")["documents"] > 0
    starts = line_starts(planted[0])
    (path,) = (tmp_path / "data" / "data").glob("*.parquet")
    exported = set(pq.read_table(path).column("position").to_pylist())
    assert not exported & {starts[number] for number in planted[1]}
    assert len(exported) > len(starts) / 4
