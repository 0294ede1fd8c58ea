"""Duplicates in the corpus: found where they were planted, the same however the work is cut; then left out."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import openclimb
from openclimb.cli.planning import status
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
from openclimb.corpus.duplicates import duplicate_shares, duplicates_sentence
from openclimb.corpus.left_out import folders_left_out
from openclimb.corpus.reading.read import Unit
from openclimb.corpus.select_documents import DocumentChoice
from openclimb.engines.local import LocalEngine
from openclimb.errors import StaleError
from openclimb.progress import Progress
from openclimb.quality import duplicates, keys
from openclimb.quality.duplicates import find_duplicates
from openclimb.quality.minhash import shingles
from openclimb.recipes import recipes
from openclimb.report.page import build_report
from openclimb.testing.fixtures import make_tiny_workspace, survey_pieces
from openclimb.workspace.context import StageContext
from openclimb.workspace.tables import read_rows

EMBED, TOKENS = EmbedSettings(embedder="hashing"), TokensSettings(vocab_size=400)
TARGET = TargetSettings(token_budget=100_000)
LEAST_WORDS = 100  # of a text of which a word in sixty is changed, so that it stays a near duplicate
EVIL = "<img src=x onerror=alert(1)>\x1b[31m"


@pytest.fixture(scope="module")
def planted(texts: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, set[int]]]:
    """A corpus with copies behind it; {how: the lines that repeat an earlier one}."""
    lines = [text for _, text in texts]
    known: dict[str, set[int]] = {"exact": set(), "near": set()}
    seen: set[str] = set()
    for number, text in enumerate(lines):  # the texts themselves may repeat
        known["exact"] |= {number} if text in seen else set()
        seen.add(text)
    originals = len(lines)
    for number in range(0, originals, 9):
        known["exact"].add(len(lines))
        lines.append(lines[number])
    for number in range(4, originals, 9):
        words = lines[number].split()
        if len(words) >= LEAST_WORDS:
            known["near"].add(len(lines))
            lines.append(" ".join("changed" if i % 60 == 30 else word for i, word in enumerate(words)).upper())
    kinds = [kind for kind, _ in texts] + ["copies"] * (len(lines) - originals)
    path = tmp_path_factory.mktemp("planted") / "docs.jsonl"
    rows = (json.dumps({"text": text, "kind": kind}) + "\n" for text, kind in zip(lines, kinds, strict=True))
    path.write_text("".join(rows), encoding="utf-8")
    assert len(known["near"]) > 10
    return path, known


@pytest.fixture(scope="module")
def root(planted: tuple[Path, dict[str, set[int]]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with corpus/ and clusters/."""
    root = tmp_path_factory.mktemp("duplicates")
    units = pieces(planted[0], root)
    (root / "clusters").mkdir()
    fit(at(root / "clusters"), units, CorpusSettings(paths=(str(planted[0]),)), EMBED, ClustersSettings(k=6), TOKENS)
    return root


def at(folder: Path, workers: int = 1) -> StageContext:
    return StageContext(folder, LocalEngine(workers), Progress())


def pieces(corpus: Path, root: Path) -> list[Unit]:
    return survey_pieces(CorpusSettings(paths=(str(corpus),)), root / "corpus", 5)


def looked(
    root: Path, out: Path, corpus: Path, dedup: str, *, together: bool = True, workers: int = 1, backwards: bool = False
) -> Path:
    """Label the corpus and find duplicates; return the folder of both."""
    units, settings = pieces(corpus, root), CorpusSettings(paths=(str(corpus),), dedup=dedup)
    order = units[::-1] if backwards else units
    for name in ("labels", "duplicates"):
        (out / name).mkdir(parents=True, exist_ok=True)
    beside = out / "duplicates" if together and dedup == "near" else None
    label(at(out / "labels"), order, root / "clusters", settings, EMBED, QualitySettings(), None, beside)
    found = at(out / "duplicates", workers)
    facts = find_duplicates(found, units, out / "labels", settings)
    record = {"version": 1, "settings": {}, "inputs": {}, "facts": facts, "seconds": 0.0, "finished": ""}
    (out / "duplicates" / "record.json").write_text(json.dumps(record))
    found.engine.release()
    return out


@pytest.fixture(scope="module")
def done(
    root: Path, planted: tuple[Path, dict[str, set[int]]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    return {how: looked(root, tmp_path_factory.mktemp(how), planted[0], how) for how in ("exact", "near")}


def written(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted((folder / "duplicates").rglob("*")) if path.is_file()]
    return {path.name: path.read_bytes() for path in files}


def most_similar(texts: list[str]) -> list[float]:
    """Return for each text the largest Jaccard similarity to an earlier one, counted."""
    hashes, starts = shingles(texts)
    sets = [set(hashes[a:b].tolist()) for a, b in zip(starts, starts[1:], strict=False)]
    return [max((len(a & b) / len(a | b) for b in sets[:i]), default=0.0) for i, a in enumerate(sets)]


def positions(folder: Path) -> set[int]:
    paths = (folder / "duplicates").glob("unit-*.parquet")
    return {place for path in paths for place in pq.read_table(path).column("position").to_pylist()}


def line_starts(corpus: Path) -> list[int]:
    return np.cumsum([0, *map(len, corpus.read_bytes().splitlines(keepends=True))])[:-1].tolist()


def test_what_was_planted_is_found_and_nothing_else(
    done: dict[str, Path], planted: tuple[Path, dict[str, set[int]]]
) -> None:
    corpus, known = planted
    starts = line_starts(corpus)
    exact = {starts[number] for number in known["exact"]}
    assert positions(done["exact"]) == exact
    near = positions(done["near"])
    assert near >= exact | {starts[number] for number in known["near"]}
    similarity = most_similar([json.loads(line)["text"] for line in corpus.read_text().splitlines()])
    assert all(value < 0.75 or place in near for value, place in zip(similarity, starts, strict=True))
    assert all(value > 0.65 for value, place in zip(similarity, starts, strict=True) if place in near)
    for how, gone in (("exact", exact), ("near", near)):
        assert set(written(done[how])) == {
            "places.csv", "record.json", "sources.csv", *(f"unit-{i:05d}.parquet" for i in range(5))
        }  # fmt: skip
        facts = json.loads((done[how] / "duplicates" / "record.json").read_text())["facts"]
        assert facts == {"documents": len(starts), "duplicates": len(gone)}
        rows = read_rows(done[how] / "duplicates" / "places.csv")
        assert sum(int(row["duplicates"]) for row in rows) == len(gone)
        assert sum(int(row["documents"]) for row in rows) == len(starts)


@pytest.mark.parametrize("how", ["exact", "near"])
def test_it_is_the_same_in_any_order_in_parallel_and_in_many_parts(
    how: str,
    done: dict[str, Path],
    root: Path,
    planted: tuple[Path, dict[str, set[int]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers = 2 if how == "near" else 1
    assert written(looked(root, tmp_path / "two", planted[0], how, workers=workers, backwards=True)) == written(
        done[how]
    )
    monkeypatch.setattr(duplicates, "PART", 300)
    monkeypatch.setattr(keys, "BLOCK", 37)
    assert written(looked(root, tmp_path / "parts", planted[0], how, together=False)) == written(done[how])


def test_a_run_that_was_killed_goes_on(
    done: dict[str, Path],
    root: Path,
    planted: tuple[Path, dict[str, set[int]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(duplicates, "PART", 2000)
    out, signed = tmp_path / "out", []
    whole, compare, count = duplicates.sign, duplicates._compare_part, duplicates._count_unit
    monkeypatch.setattr(duplicates, "sign", lambda texts: signed.append(len(texts)) or whole(texts))

    def stop_at(which: int, function):  # type: ignore[no-untyped-def]
        left = [which]

        def stopping(*given):  # type: ignore[no-untyped-def]
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return function(*given)

        return stopping

    for name, function in (("_compare_part", compare), ("_count_unit", count)):
        monkeypatch.setattr(duplicates, name, stop_at(3, function))
        with pytest.raises(KeyboardInterrupt):
            looked(root, out, planted[0], "near")
        monkeypatch.setattr(duplicates, name, function)
    (out / "labels" / "unit-00003.parquet").unlink()
    n_signed = len(signed)
    assert len(list((out / "duplicates" / "parts").iterdir())) > 3
    assert written(looked(root, out, planted[0], "near")) == written(done["near"])
    assert len(signed) - n_signed == pytest.approx(n_signed / 5, rel=0.6)  # one unit of five again


def test_duplicates_are_in_no_domain_and_caps_count_what_is_left(done: dict[str, Path], root: Path) -> None:
    labels = done["near"] / "labels"
    units = [Unit(i, "", "docs.jsonl", "jsonl", 0, 0, 0, 0, 0, "") for i in range(5)]
    rows = {}
    for name, left_out in (("all", ()), ("left", (done["near"] / "duplicates",))):
        out = done["near"] / name
        out.mkdir()
        make_domains(at(out), root / "clusters", labels, DomainsSettings(merge_to=2), TARGET, 0, left_out)
        rows[name] = read_rows(out / "domains.csv")
        choice = DocumentChoice(labels, out, 0.2, 0, (1.0,) * (len(rows[name]) + 1), left_out)
        read = {place for unit in units for place in choice.documents(unit)}
        assert bool(read & positions(done["near"])) == (not left_out)  # also not of the held-out ones
        assert sum(choice.count(unit)[1].sum() for unit in units) == len(read)
    counted = {name: sum(int(row["documents"]) for row in some) for name, some in rows.items()}
    assert counted["all"] - counted["left"] == len(positions(done["near"]))
    for row in rows["left"]:
        limit = TARGET.max_repetitions * int(row["tokens"]) / TARGET.token_budget
        assert float(row["cap"]) == pytest.approx(min(1.0, limit))
    gone = sum(int(row["duplicate_tokens"]) for row in read_rows(done["near"] / "duplicates" / "places.csv"))
    tokens = {name: sum(int(row["tokens"]) for row in some) for name, some in rows.items()}
    assert tokens["all"] - tokens["left"] == gone


def test_what_depends_on_the_setting_and_what_does_not() -> None:
    config = Config(tasks=TasksSettings(paths=("tasks/*.jsonl",)))
    made = {
        how: recipes(replace(config, corpus=replace(config.corpus, dedup=how)), "files", "tasks")
        for how in ("none", "exact", "near")
    }
    assert "duplicates" not in made["none"]
    assert not any("dedup" in name for recipe in made["none"].values() for name in recipe.settings)
    for how in ("exact", "near"):
        other = {stage for stage, recipe in made["none"].items() if recipe.fingerprint != made[how][stage].fingerprint}
        assert other == {"domains", "tokens", "mixture"}
        assert list(made[how]).index("duplicates") == list(made[how]).index("labels") + 1
    assert made["exact"]["duplicates"].fingerprint != made["near"]["duplicates"].fingerprint
    assert made["exact"]["domains"].fingerprint != made["near"]["domains"].fingerprint
    given = replace(config, corpus=replace(config.corpus, dedup="near", domains="file:domains.csv"))
    assert folders_left_out(Path("run"), given) == ()
    found = replace(given, corpus=CorpusSettings(dedup="near"))
    assert folders_left_out(Path("run"), found) == (Path("run/duplicates"),)


def test_status_and_report_say_it(
    done: dict[str, Path], planted: tuple[Path, dict[str, set[int]]], tiny_tasks: Path, tmp_path: Path
) -> None:
    workspace = make_tiny_workspace(tmp_path / "run", planted[0], tiny_tasks, corpus={"dedup": "near"})
    assert status(workspace)["duplicates"] == {}
    shutil.copytree(done["near"] / "duplicates", workspace / "duplicates")
    (workspace / "domains").mkdir()
    rows = read_rows(done["near"] / "duplicates" / "places.csv")
    lines = [f"{row['place']},{'kept' if i else EVIL}" for i, row in enumerate(rows)]
    (workspace / "domains" / "clusters.csv").write_text("\n".join(["cluster,domain", *lines, ""]))
    shares = duplicate_shares(workspace)
    assert {row["name"] for row in shares["domain"]} == {"kept", EVIL}
    assert sum(row["duplicates"] for row in shares["domain"]) == len(positions(done["near"]))
    assert shares["source"] == []  # one folder
    (workspace / "domains" / "clusters.csv").unlink()
    table = workspace / "duplicates" / "places.csv"
    table.write_text(table.read_text().replace(f"\n{rows[0]['place']},", f'\n"{EVIL}",', 1))
    sentence = duplicates_sentence(shares, "near")
    assert sentence.startswith(f"Of {sum(int(row['documents']) for row in rows):,} documents ")
    said = status_text(status(workspace))
    assert sentence in said
    assert "by domain: " in said
    assert "\x1b" not in said
    page = build_report(workspace).read_text(encoding="utf-8")
    assert "<h2>Duplicates</h2>" in page
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    nothing = {"domain": [{**shares["domain"][0], "duplicates": 0}]}
    assert duplicates_sentence(nothing, "exact").startswith("None of the ")


@pytest.mark.slow  # whole runs and an export
def test_runs_with_and_without_duplicates(
    planted: tuple[Path, dict[str, set[int]]], tiny_tasks: Path, tmp_path: Path
) -> None:
    corpus, known = planted
    starts = line_starts(corpus)
    workspace = make_tiny_workspace(tmp_path / "run", corpus, tiny_tasks)
    openclimb.open(workspace).run()
    labels = {path.name: path.read_bytes() for path in (workspace / "labels").iterdir()}
    settings = (workspace / "climb.toml").read_text()
    (workspace / "climb.toml").write_text(settings.replace('dedup = "none"', 'dedup = "near"'))
    opened = openclimb.open(workspace)
    with pytest.raises(StaleError, match="domains/ was made with other settings"):
        opened.run()
    opened.run(redo="domains")  # the labels stay; the corpus is read for the signatures alone
    assert {path.name: path.read_bytes() for path in (workspace / "labels").iterdir()} == labels
    assert opened.export(50_000, tmp_path / "data")["documents"] > 0
    (path,) = (tmp_path / "data" / "data").glob("*.parquet")
    exported = set(pq.read_table(path).column("position").to_pylist())
    assert not exported & {starts[number] for some in known.values() for number in some}
    assert len(exported) > len(starts) / 4
    fresh = make_tiny_workspace(tmp_path / "fresh", corpus, tiny_tasks, corpus={"dedup": "near"})
    openclimb.open(fresh).run()
    assert (fresh / "mixture" / "mixture.csv").read_bytes() == (workspace / "mixture" / "mixture.csv").read_bytes()
    assert written(fresh).keys() == written(workspace).keys()
    assert positions(fresh) == positions(workspace)
