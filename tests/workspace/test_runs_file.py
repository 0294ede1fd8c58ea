"""Tables of finished runs as people have them: bookkeeping columns, rounded weights, gaps, dialects of spreadsheets."""

from pathlib import Path

import pytest

import openclimb
from openclimb.cli.main import main
from openclimb.errors import InputError
from openclimb.testing.fixtures import complaint
from openclimb.workspace.runs_file import Directions, RunTables, read_runs
from openclimb.workspace.sheet import read_numbers, read_sheet
from openclimb.workspace.tables import csv_text

DOMAINS = ("web", "code", "books")
RATIOS = "run,web,code,books\na,0.5,0.3,0.2\nb,0.1,0.2,0.7\n"
METRICS = "run,piqa,bpb_code\na,0.5,1.25\nb,0.75,1.5\n"


def read(folder: Path, ratios: str | bytes, metrics: str | bytes = METRICS, **more: object) -> RunTables:
    for name, text in (("r.csv", ratios), ("m.csv", metrics)):
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    directions = Directions(**more)  # type: ignore[arg-type]
    return read_runs(folder / "r.csv", folder / "m.csv", DOMAINS, directions)


def said(tables: RunTables) -> str:
    return "\n".join(tables.notes)


def test_one_key_is_chosen_and_other_bookkeeping_is_named_and_left_out(tmp_path: Path) -> None:
    ratios = ",run,name,index,web,code,books\n0,x1,mix-a,0,0.5,0.3,0.2\n1,x2,mix-b,1,0.1,0.2,0.7\n2,x3,mix-c,2,1,0,0\n"
    metrics = ",run,name,index,piqa,arc::olmes\n0,x2,mix-b,1,0.7,1.5\n1,x1,mix-a,0,0.5,1.25\n2,x9,mix-d,5,0.1,0.1\n"
    found = read(tmp_path, ratios, metrics)
    assert [(run.name, run.scores) for run in found.runs] == [
        ("x1", {"piqa": 0.5, "arc::olmes": 1.25}),
        ("x2", {"piqa": 0.7, "arc::olmes": 1.5}),
    ]
    assert found.runs[1].weights == pytest.approx((0.1, 0.2, 0.7))
    for sentence in (
        "runs are named by 'run'",
        "columns of r.csv left out: (without a name), name, index",
        "columns of m.csv left out: (without a name), name, index",
        "runs in r.csv and not in m.csv, left out: x3",
        "runs in m.csv and not in r.csv, left out: x9",
    ):
        assert sentence in found.notes


@pytest.mark.parametrize(
    ("ratios", "metrics", "key"),
    [
        ("name,run", "name,run", "run"),
        ("Name,seed", "name,seed", "Name"),  # case differs; a seed names nothing
        ("run,name", "run,name", "name"),  # two runs of one name: the first key that is another in every row
        ("Unnamed: 0,model", ",notes", "Unnamed: 0"),
        ("index,created", "index,state", "index"),
    ],
)
def test_the_first_column_that_can_names_the_runs(ratios: str, metrics: str, key: str, tmp_path: Path) -> None:
    keys = {"a": "same,a", "b": "same,b"} if key == "name" else {"a": "a,a", "b": "b,b"}
    first = f"{ratios},web,code,books\n" + "".join(f"{keys[k]},0.5,0.3,0.2\n" for k in "ab")
    second = f"{metrics},piqa\n" + "".join(f"{keys[k]},{k == 'a':d}\n" for k in "ba")
    found = read(tmp_path, first, second)
    assert found.notes[0] == f"runs are named by '{key}'"
    assert [run.scores for run in found.runs] == [{"piqa": 1.0}, {"piqa": 0.0}]


def test_rounded_weights_are_renormalised_and_a_domain_without_weight_has_no_evidence(tmp_path: Path) -> None:
    ratios = "index,web,code,books\n1,0.333,0,0.663\n2,0.334,0,0.670\n3,0.25,0,0.75\n"
    found = read(tmp_path, ratios, "index,piqa\n1,0.5\n2,0.25\n3,1\n")
    assert found.runs[0].weights == pytest.approx((0.333 / 0.996, 0.0, 0.663 / 0.996), abs=1e-12)
    assert all(sum(run.weights) == pytest.approx(1.0, abs=1e-12) for run in found.runs)
    assert "2 of 3 rows renormalised: their weights summed to 1 but for 0.004 at most" in found.notes
    assert "no evidence, since the weight is 0 in every run, for: code" in found.notes
    with pytest.raises(InputError, match=r"line 2: the weights sum to 0\.98, not 1"):
        read(tmp_path, "run,web,code,books\na,0.5,0.3,0.18\n")


def test_an_empty_cell_is_a_score_that_was_not_measured(tmp_path: Path) -> None:
    found = read(tmp_path, RATIOS + "c,1,0,0\n", "run,piqa,arc,gone\na,,0.5,\nb,0.25,0.75,\nc,,,\n")
    assert [run.scores for run in found.runs] == [{"arc": 0.5}, {"piqa": 0.25, "arc": 0.75}]
    assert "1 score missing, by task: piqa (1)" in found.notes
    assert "runs without any score, left out: c" in found.notes
    assert "columns of m.csv left out: gone" in found.notes


def test_a_direction_for_each_metric(tmp_path: Path) -> None:
    metrics = "run,piqa,bpb_code,bpb_math,loss[x]\na,0.5,1.25,2,3\nb,0.75,1.5,0,4\n"
    found = read(tmp_path, RATIOS, metrics, lower=("bpb_*", "loss[x]"))
    assert found.runs[0].scores == {"piqa": 0.5, "bpb_code": -1.25, "bpb_math": -2.0, "loss[x]": -3.0}
    assert "lower is better, sign changed: bpb_code, bpb_math, loss[x]" in found.notes
    assert "higher is better: piqa" in found.notes
    assert str(found.runs[1].scores["bpb_math"]) == "0.0"
    assert read(tmp_path, RATIOS, losses=True).runs[0].scores == {"piqa": -0.5, "bpb_code": -1.25}
    doubted = "named as losses and taken as higher is better (--lower changes that): bpb_code"
    assert doubted in read(tmp_path, RATIOS).notes
    with pytest.raises(InputError, match=r"--lower 'pbp_\*' matches no metric"):
        read(tmp_path, RATIOS, lower=("pbp_*",))


EUROPEAN = "run;web;code;books\na;0,5;0,3;0,2\nb;0,1;0,2;0,7\n"


@pytest.mark.parametrize(
    ("ratios", "dialect"),
    [
        (EUROPEAN.encode(), "separator semicolon"),
        (EUROPEAN.replace(";", "\t").encode("utf-16"), "UTF-16, separator tab"),
        (EUROPEAN.encode("utf-16-le"), "UTF-16-LE, separator semicolon"),
        (b"\xfe\xff" + EUROPEAN.encode("utf-16-be"), "UTF-16, separator semicolon"),
        (EUROPEAN.encode("utf-8-sig"), "separator semicolon"),
        (b"sep=;\r\n" + EUROPEAN.replace("\n", "\r\n").encode(), "separator semicolon"),
        (EUROPEAN.replace(";", "|").encode(), "separator bar"),
        (b"run;web;code;books;;\na;50 %;30%;20 %;;\n;;;;;\nb;10,0 %;20%;70\xc2\xa0%;;\n", "separator semicolon"),
        (b'run,web,code,books\na,"0,5","0,3","0,2"\nb,"0,1","0,2","0,7"\n', ""),
        (b"run, web, code, books\na, 5E-1, .3, 0.20\nb, 1e-01, +0.2, 0.7\n\n\n", ""),
    ],
)
def test_dialects_of_spreadsheets(ratios: bytes, dialect: str, tmp_path: Path) -> None:
    found = read(tmp_path, ratios)
    assert [run.weights for run in found.runs] == [pytest.approx((0.5, 0.3, 0.2)), pytest.approx((0.1, 0.2, 0.7))]
    assert (f"r.csv is read as: {dialect}" in found.notes) == bool(dialect)


def test_a_table_saved_as_csv_ansi_is_read_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "d.csv").write_bytes("name;tokens\nAktenzüge – „Recht“;8M\nCafé;2M\n".encode("cp1252"))
    (tmp_path / "r.csv").write_bytes("run;Aktenzüge – „Recht“;Café\na;0,5;0,5\nb;0,9;0,1\n".encode("cp1252"))
    (tmp_path / "m.csv").write_bytes("run;Qualität\na;1,5\nb;1,25\n".encode("cp1252"))
    root = tmp_path / "run"
    arguments = ["--domains-file", str(tmp_path / "d.csv"), "--target-tokens", "1M"]
    assert main(["init", str(root), *arguments]) == 0
    assert "d.csv is read as: Windows-1252, as it is not UTF-8" in capsys.readouterr().out
    assert main(["import", str(root), str(tmp_path / "r.csv"), str(tmp_path / "m.csv")]) == 0
    told = capsys.readouterr().out
    for name in ("r.csv", "m.csv"):
        assert f"{name} is read as: Windows-1252, as it is not UTF-8" in told
    trials = openclimb.open(root).trials()
    assert [trial.scores for trial in trials] == [{"Qualität": 1.5}, {"Qualität": 1.25}]
    assert trials[0].mixture.as_dict() == {"Aktenzüge – „Recht“": 0.5, "Café": 0.5}


def test_names_with_the_apostrophe_of_our_own_tables_are_taken_back(tmp_path: Path) -> None:
    domains = ["=web", "'@code", "books"]
    ratios = csv_text(("run", *domains), [("a", 0.5, 0.25, 0.25), ("b", 0.25, 0.5, 0.25)])
    metrics = csv_text(("run", "-task"), [("a", 1.0), ("b", 2.0)])
    assert ratios.startswith("run,'=web,''@code,books\n")
    (tmp_path / "r.csv").write_text(ratios)
    (tmp_path / "m.csv").write_text(metrics)
    found = read_runs(tmp_path / "r.csv", tmp_path / "m.csv", domains, Directions(), {"-task"})
    assert found.runs[0].weights == (0.5, 0.25, 0.25)
    assert found.runs[1].scores == {"-task": 2.0}
    (tmp_path / "r.csv").write_text(ratios.replace("''@", "'@"))  # as it stands, where that is its name
    assert read_runs(tmp_path / "r.csv", tmp_path / "m.csv", domains, Directions()).runs[0].weights == (0.5, 0.25, 0.25)
    (tmp_path / "r.csv").write_text(ratios.replace("books", "'books"))  # no table of ours has that
    with pytest.raises(InputError, match="no column for the domain 'books'"):
        read_runs(tmp_path / "r.csv", tmp_path / "m.csv", domains, Directions())


def test_weights_in_percent_without_the_sign(tmp_path: Path) -> None:
    found = read(tmp_path, "run,web,code,books\na,50,30,20\nb,10.1,20,70\n")
    assert found.runs[0].weights == pytest.approx((0.5, 0.3, 0.2))
    assert "weights are percentages: divided by 100" in found.notes
    assert "1 of 2 rows renormalised: their weights summed to 1 but for 0.001 at most" in found.notes


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("x;y\n1.234,5;2\n1.000.000;0,25\n", [1234.5, 1e6, 2.0, 0.25]),
        ('x,y\n"1,234.5",2\n"1,000,000",0.25\n', [1234.5, 1e6, 2.0, 0.25]),
        ("x;y\n1 234,5;−2\n1’000’000;0,25\n", [1234.5, 1e6, -2.0, 0.25]),
        ("x;y\n1,234;2\n0;1\n", [1.234, 0.0, 2.0, 1.0]),  # beside semicolons a comma is decimal
        ("x\ty\n1,234\t2\n0.5\t1\n", [1234.0, 0.5, 2.0, 1.0]),  # a point elsewhere: the comma is of thousands
    ],
)
def test_commas_before_decimals_and_thousands(text: str, numbers: list[float], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    found = read_numbers(read_sheet(tmp_path / "t.csv", ""), ["x", "y"])
    assert [*found["x"], *found["y"]] == pytest.approx(numbers)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04\xff\xfe" + bytes(range(128, 256)), "is an Excel workbook"),
        (b"run,web\n\xe9\x81,1\n", "is not a CSV file"),  # no character of Windows-1252
        (b"run,web\n\xe9\x01,1\n", "is not a CSV file"),
        ("run,web,caf\u00e9\na,0.5,0.5\n".encode() + b"\xe9", "is not a CSV file"),  # UTF-8 with a damaged byte
        (b"run;web;code;books\na;0,5;0.3;0,2\n", "commas or points"),
        (b"run,web,code,books\na,0,5,0,3,0,2\n", "has 7 cells, not 4"),
        (b"run,web,code,books\na,0.5,0.3\n", "has 3 cells, not 4"),
        (b"", "has no rows"),
    ],
)
def test_tables_that_cannot_be_told_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, data)
    assert message in caught.value.message
    assert caught.value.fix


def test_import_prints_what_it_took(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "d.csv").write_text("name;tokens\nweb;800B\ncode;120B\nbooks;26B\n", encoding="utf-16")
    arguments = ["--domains-file", str(tmp_path / "d.csv"), "--target-tokens", "40B"]
    assert main(["init", str(tmp_path / "run"), *arguments]) == 0
    (tmp_path / "r.csv").write_text(RATIOS + "c,0.2,0.2,0.6\n")
    (tmp_path / "m.csv").write_text(METRICS + "c,,2\n")
    command = ["import", str(tmp_path / "run"), str(tmp_path / "r.csv"), str(tmp_path / "m.csv"), "--lower", "bpb_*"]
    capsys.readouterr()
    for new in (3, 0):
        assert main(command) == 0
        out = capsys.readouterr().out
        assert f"3 runs, {new} of them new: trials 1 to 3" in out
        assert "- lower is better, sign changed: bpb_code" in out
    assert openclimb.open(tmp_path / "run").trials()[2].scores == {"bpb_code": -2.0}
    assert main(["best", str(tmp_path / "run")]) == 0  # the rest of a run with a gap is used
    assert main([*command, "--lower", "none*"]) == 1
    assert "matches no metric" in complaint(capsys.readouterr().err)
