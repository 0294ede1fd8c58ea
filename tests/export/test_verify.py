"""`climb verify`: a good dataset of every format passes; each kind of damage is found and named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import openclimb
from openclimb.cli.main import main
from openclimb.config.registry import names
from openclimb.errors import WorkspaceError
from openclimb.export.checks.spread import spread_of
from openclimb.export.verify import verify
from openclimb.progress import Progress
from openclimb.testing.fixtures import complaint
from openclimb.workspace.files import file_checksum, read_json, write_json

Change = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def made(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("verify") / "data"
    openclimb.open(finished).export(100_000, out, shard_bytes=40_000)
    return out


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(made, tmp_path / "data")


def shards(out: Path) -> list[Path]:
    return sorted(path for path in (out / "data").rglob("*") if path.is_file())


def faults(out: Path) -> list[str]:
    return [str(fault) for fault in verify(str(out), Progress()).faults]


def resign(out: Path, *paths: Path) -> None:
    """Write the checksums of changed files into the record, as someone would who hides the change."""
    record = read_json(out / "record.json")
    for path in paths:
        record["files"][str(path.relative_to(out))] = {"bytes": path.stat().st_size, "checksum": file_checksum(path)}
    write_json(out / "record.json", record)


def rewrite(out: Path, path: Path, change: Change) -> None:
    """Change a shard's rows, and its checksum in the record."""
    table = pq.read_table(path)
    pq.write_table(pa.Table.from_pylist(change(table.to_pylist()), schema=table.schema), path)
    resign(out, path)


def test_a_good_dataset_passes_and_says_what_was_checked(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = verify(str(made), Progress())
    record = read_json(made / "record.json")
    assert found.faults == ()
    assert found.checks == ("files", "tokens", "counts", "shares", "repetitions", "order")
    assert (found.documents, found.tokens) == (record["facts"]["documents"], record["facts"]["tokens"])
    assert found.files == len(record["files"])
    assert found.tokenised == -(-found.documents // 100)
    assert main(["verify", str(made), "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("as its card says: files, tokens, counts, shares, repetitions, order of")


@pytest.mark.parametrize("by_domain", [False, True])
@pytest.mark.parametrize("format", names("writer"))
def test_every_format_passes_and_a_flipped_byte_does_not(
    format: str, by_domain: bool, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "data"
    facts = openclimb.open(finished).export(30_000, out, format, shard_bytes=20_000, by_domain=by_domain)
    assert len(facts["shards"]) > 1
    found = verify(str(out), Progress())
    assert found.faults == ()
    assert ("order" in found.checks) is not by_domain
    assert found.documents == facts["documents"]
    victim = shards(out)[0]
    victim.write_bytes(bytes([victim.read_bytes()[0] ^ 1]) + victim.read_bytes()[1:])
    assert faults(out) == [f"files: {victim.relative_to(out)} has other content"]


def test_files_that_are_gone_cut_short_exchanged_or_added_are_named(out: Path) -> None:
    one, other, third, *_ = shards(out)
    size = one.stat().st_size
    one.write_bytes(one.read_bytes()[:-20])
    assert faults(out) == [f"files: data/{one.name} has {size - 20:,} bytes, not {size:,}"]
    one.write_bytes(other.read_bytes())
    assert faults(out) == [f"files: data/{one.name} has the content of data/{other.name}"]
    third.unlink()
    (out / "mixture.csv").write_text("a,b\n")
    (out / "data" / "more.parquet").write_bytes(b"")
    assert faults(out)[0] == "files: data/more.parquet is in no record"
    assert f"files: data/{third.name} is gone" in faults(out)
    assert any(fault.startswith("files: mixture.csv has 4 bytes") for fault in faults(out))


def test_rows_that_were_removed_are_missed_in_their_shard(out: Path) -> None:
    one = shards(out)[1]
    gone = pq.read_table(one).to_pylist()[5]
    rewrite(out, one, lambda rows: rows[:5] + rows[6:])
    found = faults(out)
    assert any(fault.startswith(f"counts: data/{one.name} has ") and gone["domain"] in fault for fault in found)
    assert all(fault.split(":")[0] in ("counts", "shares", "repetitions") for fault in found)


def test_shards_that_changed_places_are_told_by_their_counts(out: Path) -> None:
    one, other, *_ = shards(out)
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    resign(out, one, other)
    named = {fault.split()[1] for fault in faults(out) if fault.startswith("counts")}
    assert named == {f"data/{one.name}", f"data/{other.name}"}


def test_a_domain_that_was_relabelled_is_told(out: Path) -> None:
    largest, second = [row["name"] for row in read_json(out / "mixture.json")["domains"]][:2]
    for path in shards(out):
        rewrite(
            out,
            path,
            lambda rows: [row | {"domain": second if row["domain"] == largest else row["domain"]} for row in rows],
        )
    found = faults(out)
    assert any(fault.startswith(f"shares: {largest} is 0.000% of the tokens") for fault in found)
    assert any(fault.startswith(f"shares: {second} is") for fault in found)
    assert any(f"has 0 documents of {largest}, not" in fault for fault in found)
    path = shards(out)[0]
    rewrite(out, path, lambda rows: [row | {"domain": "another"} for row in rows])
    assert f"files: data/{path.name} has documents of 'another', which is no domain of the mixture" in faults(out)


def test_a_document_that_comes_once_more_than_its_number_says_is_told(out: Path) -> None:
    one = shards(out)[0]
    rows = pq.read_table(one).to_pylist()
    i = next(i for i in range(1, len(rows)) if rows[i]["domain"] == rows[0]["domain"])
    rewrite(out, one, lambda rows: [*rows[:i], rows[0], *rows[i + 1 :]])
    assert any(fault.startswith(f"repetitions: data/{one.name} row {i} has a number") for fault in faults(out))


def test_a_copy_with_another_text_is_told(out: Path) -> None:
    last = shards(out)[-1]
    i = next(i for i, row in enumerate(pq.read_table(last).to_pylist()) if row["repetition"])
    rewrite(
        out, last, lambda rows: [row | {"text": row["text"] + ("!" if i == at else "")} for at, row in enumerate(rows)]
    )
    assert f"repetitions: data/{last.name} row {i} has another text than its copy" in faults(out)


def test_more_copies_than_the_record_says_are_told(out: Path) -> None:
    record = read_json(out / "record.json")
    row = max(record["facts"]["domains"], key=lambda row: row["copies"])
    assert row["copies"] > 1
    row["copies"] -= 1
    write_json(out / "mixture.json", read_json(out / "mixture.json") | {"domains": record["facts"]["domains"]})
    write_json(out / "record.json", record)
    resign(out, out / "mixture.json")
    assert any(
        fault.startswith(f"repetitions: {row['name']} has documents") and fault.endswith(f"at most {row['copies']}")
        for fault in faults(out)
    )


def test_a_dataset_that_is_sorted_by_domain_is_out_of_order(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    openclimb.open(finished).export(100_000, out)
    (path,) = shards(out)
    rewrite(out, path, lambda rows: sorted(rows, key=lambda row: row["domain"]))
    found = faults(out)
    assert found
    assert all(fault.startswith("order: ") and " off its share " in fault for fault in found)
    rewrite(out, path, lambda rows: sorted(rows, key=lambda row: -row["repetition"]))
    assert any(fault.endswith("comes before copies of an earlier round") for fault in faults(out))


def test_a_random_order_passes_and_a_drift_that_no_stretch_shows_does_not() -> None:
    rng = np.random.default_rng(0)
    mine = rng.random(40_000) < 0.3
    tokens = np.ceil(rng.lognormal(5.0, 1.0, len(mine)))
    for _ in range(20):
        order = rng.permutation(len(mine))
        assert spread_of(mine[order], tokens[order]).worst < 1
    place = rng.random(len(mine))
    place[mine] **= 1.3  # the domain comes earlier than the others
    spread = spread_of(mine[np.argsort(place)], tokens[np.argsort(place)])
    assert (np.abs(spread.stretches[5:]) < spread.of_stretch[5:]).all()
    assert (spread.first[20:80] > spread.of_first[20:80]).all()


def test_tokens_that_were_miscounted_are_counted_again(out: Path) -> None:
    one = shards(out)[0]
    rewrite(out, one, lambda rows: [row | {"tokens": row["tokens"] + 1} for row in rows])
    assert any(fault.startswith(f"tokens: data/{one.name} document ") for fault in faults(out))
    tokenizer = out / "tokenizer" / "tokenizer.json"
    tokenizer.unlink()
    found = verify(str(out), Progress())
    assert "files: tokenizer/tokenizer.json is gone" in map(str, found.faults)
    assert "tokens" not in found.checks


def test_a_card_that_says_something_else_than_the_record_is_told(out: Path) -> None:
    said = read_json(out / "mixture.json")
    (out / "mixture.json").write_text("{")
    assert [fault.partition(" has ")[0] for fault in faults(out)] == ["files: mixture.json"]
    write_json(out / "mixture.json", said | {"documents": 1})
    resign(out, out / "mixture.json")
    assert faults(out) == ["counts: mixture.json says something else than record.json"]
    record = read_json(out / "record.json")
    record["facts"] = {name: said[name] for name in record["facts"]} | {"documents": 1}
    record["facts"]["domains"][0]["tokens"] += 1
    record["facts"]["domains"][0]["weight"] += 0.1
    write_json(out / "record.json", record)
    found = faults(out)
    assert "shares: record.json names other weights in its facts than were asked for" in found
    assert any(fault.endswith("documents, and the card says 1") for fault in found)
    assert any(fault.startswith(f"shares: {said['domains'][0]['name']} is ") for fault in found)


def test_a_url_is_verified_as_a_folder_is(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]  # in a folder that is there, `put` makes another one
    try:
        store.put(str(made), "/bucket/data", recursive=True)
        assert verify("memory://bucket/data", Progress()) == verify(str(made), Progress())
        store.rm_file(f"/bucket/data/data/{shards(made)[0].name}")
        assert main(["verify", "memory://bucket/data", "--quiet"]) == 1
        printed = capsys.readouterr()
        assert printed.out == f"files: data/{shards(made)[0].name} is gone\n"
        assert "1 fault: the dataset is not as its card says" in complaint(printed.err)
    finally:
        store.store.clear()


def test_faults_are_printed_as_json(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (out / "mixture.csv").unlink()
    assert main(["verify", str(out), "--json"]) == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["faults"] == [{"check": "files", "where": "mixture.csv", "what": "is gone"}]


def test_what_is_no_export_is_refused(out: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(WorkspaceError, match="holds no finished export"):
            verify(str(folder), Progress())
    record = read_json(out / "record.json")
    for change, message in (
        ({"facts": record["facts"] | {"format": "os:system"}}, "os:system, which is not built in"),
        (
            {"files": record["files"] | {"../../secret": {"bytes": 1, "checksum": ""}}},
            "a file lies elsewhere",
        ),
        ({"shards": []}, "it lacks parts"),
    ):
        write_json(out / "record.json", record | change)
        with pytest.raises(WorkspaceError, match=message):
            verify(str(out), Progress())
    (out / "record.json").write_text("{")
    with pytest.raises(WorkspaceError, match=r"record\.json cannot be read"):
        verify(str(out), Progress())
