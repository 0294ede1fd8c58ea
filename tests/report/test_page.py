"""The page: what it says is what the files say, whatever stands in the documents and however far the run is."""

import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import openclimb
from openclimb.report.page import build_report
from openclimb.workspace.files import read_json, write_json


def _figures(page: str) -> dict[str, Any]:
    found = re.search(r'<script id="figures" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


def _built(root: Path) -> str:
    return build_report(root).read_text(encoding="utf-8")


def test_every_part_stands_on_the_page(finished: Path) -> None:
    page = _built(finished)
    answer = openclimb.open(finished).mixture()
    for title in (
        "The mixture",
        "Beside the baselines",
        "Mixture analysis",
        "The map",
        "The domains",
        "Can the clusters be trusted?",
        "Where to prune",
        "The search",
        "What it cost",
    ):
        assert f"<h2>{title}</h2>" in page
    assert html.escape(answer.sentence) in page
    for row in answer.domains:
        assert row.name in page
    for task in answer.mixtures[0].report.tasks:
        assert task in page
    assert "max_repetitions" in page  # the settings


def test_the_charts_show_the_numbers_of_the_files(finished: Path) -> None:
    figures = _figures(_built(finished))
    answer = openclimb.open(finished).mixture()
    assert set(figures) == {"weights", "losses", "margins", "by_iteration", "map", "search", "predicted"}
    found = next(trace for trace in figures["weights"]["data"] if trace.get("name") == "found")
    assert sorted(found["x"]) == sorted(row.weight for row in answer.domains)
    margins = figures["margins"]["data"][0]
    assert sorted(margins["x"]) == sorted(margin.mean for margin in answer.margins.values())
    searched = [trial for trial in openclimb.open(finished).trials() if trial.role == "search"]
    points = [x for trace in figures["search"]["data"] if trace["mode"] == "markers" for x in trace["x"]]
    assert len(points) == len(searched)
    predictor = read_json(sorted(finished.glob("iterations/*/diagnostics.json"))[-1])["predictions"]
    assert figures["predicted"]["data"][0]["y"] == [row["measured"] for row in predictor]


def test_documents_and_names_cannot_put_code_on_the_page(finished: Path, tmp_path: Path) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    answer = read_json(root / "mixture" / "mixture.json")
    name = answer["domains"][0]["name"]
    for path in (root / "domains").glob("*.csv"):
        path.write_text(path.read_text().replace(name, evil))
    answer["domains"][0]["name"] = evil
    answer["sentence"] = evil
    write_json(root / "mixture" / "mixture.json", answer)
    page = _built(root)
    assert "<script>alert(1)" not in page
    assert "<img src=x" not in page
    assert _figures(page)


def test_a_run_that_is_not_done_yet_has_a_page_of_what_there_is(finished: Path, tmp_path: Path) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(root / "mixture")
    page = _built(root)
    assert "Beside the baselines" not in page
    assert "The search" in page
    shutil.rmtree(root / "trials")
    shutil.rmtree(root / "iterations")
    assert "The domains" in _built(root)
    for stage in ("tokens", "domains", "labels", "clusters", "corpus"):
        shutil.rmtree(root / stage)
        assert "<h2>Settings</h2>" in _built(root)


def test_failed_trials_are_listed_with_their_message(finished: Path, tmp_path: Path) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    trial = openclimb.open(root).trials()[0]
    folder = root / "trials" / f"{trial.number:04d}"
    (folder / "scores.json").unlink()
    write_json(folder / "failure.json", {"message": "the loss is nan", "attempts": 2})
    page = _built(root)
    assert "1 trial failed" in page
    assert "the loss is nan" in page


def test_pruned_clusters_say_why(finished: Path, tmp_path: Path) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    table = root / "domains" / "clusters.csv"
    lines = table.read_text().splitlines()
    column = lines[0].split(",").index("kept")
    cells = lines[1].split(",")
    cells[column], cells[lines[0].split(",").index("reason")] = "no", "mean rules 0.1 is below 0.5"
    table.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    assert "mean rules 0.1 is below 0.5" in _built(root)


def test_documents_at_a_limit_stand_on_the_page_escaped(finished: Path, tmp_path: Path) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    record = read_json(root / "domains" / "record.json")
    record["settings"]["domains.prune_quantile"] = {"heuristics": 0.25}
    write_json(root / "domains" / "record.json", record)
    sample = pq.read_table(root / "clusters" / "sample.parquet")
    evil = [f"<i onclick=alert(3)>{text}" for text in sample["excerpt"].to_pylist()]
    place = sample.column_names.index("excerpt")
    pq.write_table(sample.set_column(place, "excerpt", [evil]), root / "clusters" / "sample.parquet")
    page = _built(root)
    assert "<h3>heuristics: the lowest 25%</h3>" in page
    assert page.count("<td>goes</td>") == 2
    assert page.count("<td>stays</td>") == 3
    assert page.count("<td>&lt;i onclick=alert(3)&gt;") == 5
    assert "<i onclick" not in page


def test_poor_clusters_are_warned_of_on_the_page(finished: Path, tmp_path: Path) -> None:
    assert "No measure is poor." in _built(finished)
    root = shutil.copytree(finished, tmp_path / "run")
    trust = read_json(root / "clusters" / "trust.json")
    other = {"name": "Greek<b>", "documents": 40, "share": 0.1, "clusters": 1.1, "home": 0, "in_home": 0.9}
    latin = {"name": "Latin", "documents": 360, "share": 0.9, "clusters": 6.0, "home": 1, "in_home": 0.3}
    scripts = [{**latin, "of_home": 1.0}, {**other, "of_home": 0.2}]
    write_json(root / "clusters" / "trust.json", {**trust, "largest": 0.93, "scripts": scripts})
    page = _built(root)
    assert "<strong>Take care:</strong> one cluster holds 93% of the documents" in page
    assert "<td>Greek&lt;b&gt;</td><td>10.0%</td><td>1.1</td><td>90%</td><td>20%</td>" in page.replace("\n", "")


def test_a_workspace_of_before_has_a_page_without_the_parts_that_it_lacks(finished: Path, tmp_path: Path) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    (root / "clusters" / "trust.json").unlink()
    (root / "tokens" / "similarity.csv").unlink()
    page = _built(root)
    assert "Can the clusters be trusted?" not in page
    assert "Domains and tasks" not in page
    assert "Weights by iteration" in page


def test_a_page_without_its_library_is_small_and_its_elements_are_closed(finished: Path) -> None:
    page = re.sub(r"<script>.*?</script>", "", _built(finished), flags=re.DOTALL)
    assert len(page.encode()) < 200_000
    checker = Elements()
    checker.feed(page)
    checker.close()
    assert checker.open == []


class Elements(HTMLParser):
    """The elements that are open at a place; fails where one is closed that is not the last."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_page_needs_neither_torch_nor_lightgbm(finished: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys\nclass Gone:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'lightgbm'):\n            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Gone())\n"
        "from pathlib import Path\nfrom openclimb.report.page import build_report\n"
        f"build_report(Path({str(finished)!r}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rounds_of_the_finalists_and_the_warning_stand_on_the_page(finished: Path, tmp_path: Path) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    answer = read_json(root / "mixture" / "mixture.json")
    answer["candidates"] = [
        {"name": f"finalist-{i}", "weights": {}, "expected": -1.0 - i, "probability_best": 0.0} for i in (1, 2, 3)
    ]
    answer["rounds"] = [
        {
            "seed": 1,
            "expected": {},
            "probability_best": {"finalist-1": 0.5, "finalist-2": 0.4, "finalist-3": 0.1},
            "dropped": ["finalist-3"],
            "left": ["finalist-1", "finalist-2"],
        },
        {
            "seed": 2,
            "expected": {},
            "probability_best": {"finalist-1": 0.96, "finalist-2": 0.04},
            "dropped": [],
            "left": ["finalist-1", "finalist-2"],
        },
    ]
    write_json(root / "mixture" / "mixture.json", answer)
    last = sorted(root.glob("iterations/*/diagnostics.json"))[-1]
    write_json(last, {**read_json(last), "warning": "scores cannot be predicted <yet>"})
    page = _built(root)
    assert "<h2>The finalists</h2>" in page
    assert "10% out" in page
    assert "finalist-1 was sure enough (96%" in page
    assert "<strong>Take care:</strong> scores cannot be predicted &lt;yet&gt;" in page
    for task in read_json(last)["rank_correlation"]:
        assert f"<td>{task}</td>" in page
