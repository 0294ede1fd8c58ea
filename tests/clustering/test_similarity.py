"""The similarity of domains and tasks is the cosine of their mean vectors, of the items that the search sees."""

import json
from pathlib import Path

import numpy as np
import pytest

import openclimb
from openclimb.clustering.embed import load_embedder
from openclimb.clustering.similarity import FILE, NAME, write_similarity
from openclimb.engines.local import LocalEngine
from openclimb.progress import Progress
from openclimb.tasks.items import Item, search_items
from openclimb.workspace.context import StageContext
from openclimb.workspace.records import Workspace
from openclimb.workspace.tables import read_rows


def test_a_run_compares_each_domain_with_each_task(finished: Path) -> None:
    rows = read_rows(finished / "tokens" / FILE)
    config = Workspace(finished).config()
    embed = load_embedder(config.embed, finished / "clusters")
    centroids = np.load(finished / "domains" / "centroids.npy", allow_pickle=False)
    assert [row[NAME] for row in rows] == [row["name"] for row in read_rows(finished / "domains" / "domains.csv")]
    for task in ("speech", "stories"):
        mean = embed([item.pairs[item.gold][0] + item.pairs[item.gold][1] for item in search_items(config.tasks)[task]])
        expected = centroids @ (mean.mean(0) / np.linalg.norm(mean.mean(0)))
        assert [float(row[task]) for row in rows] == pytest.approx(expected.tolist(), abs=1e-4)
    assert len(rows[0]) == 3


def test_the_search_items_are_those_that_trials_score(finished: Path) -> None:
    packed = json.loads((finished / "tokens" / "tasks" / "tasks.json").read_text())
    found = search_items(Workspace(finished).config().tasks)
    assert {task: len(items) for task, items in found.items()} == {task: n["search"] for task, n in packed.items()}


def compared(finished: Path, out: Path, domains: Path, tasks: dict[str, list[Item]]) -> Path:
    context = StageContext(out, LocalEngine(1), Progress())
    write_similarity(context, Workspace(finished).config().embed, finished / "clusters", domains, tasks)
    return out / FILE


def test_a_domain_is_most_like_a_task_of_its_own_text(finished: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    domains = finished / "domains"
    embed = load_embedder(openclimb.open(finished).config.embed, finished / "clusters")
    centroids = np.load(domains / "centroids.npy", allow_pickle=False)
    corpus = [json.loads(line)["text"] for line in tiny_corpus.read_text(encoding="utf-8").splitlines()]
    nearest = (embed(corpus) @ centroids.T).argsort(axis=0)[-40:]  # of each domain
    tasks = {f"of {i}": [Item((("", corpus[row]),), 0, 0.1) for row in nearest[:, i]] for i in range(len(centroids))}
    rows = read_rows(compared(finished, tmp_path, domains, tasks))
    for i, row in enumerate(rows):
        assert max(tasks, key=lambda task: float(row[task])) == f"of {i}"


def test_without_centroids_or_items_there_is_no_table(finished: Path, tmp_path: Path) -> None:
    items = [Item((("a ", "b"),), 0, 0.1)]
    assert not compared(finished, tmp_path, tmp_path, {"one": items}).exists()  # domains that were brought
    assert not compared(finished, tmp_path, finished / "domains", {"reported": []}).exists()
