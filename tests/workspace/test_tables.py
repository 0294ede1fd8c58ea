"""CSV: hostile names come back as they were, numbers stay numbers, and no cell is a formula to a spreadsheet."""

import csv
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from openclimb.config.schema import TargetSettings
from openclimb.corpus.custom_domains import read_custom, write_custom
from openclimb.mixture import Domain
from openclimb.workspace.tables import csv_text, mixture_table, read_csv, read_rows, write_csv

HOSTILE = "=HYPERLINK(\"http://x\",'<script>alert(1)</script>')|`a`,\r\n+b"
TEXTS = [HOSTILE, "=1+1", "+cmd", "-2+3", "@SUM(A1)", "\tx", "\r", "a\rb", "'=x", "''@y", "'plain", "-5", "1e3", "日本"]


def test_names_come_back_and_none_is_a_formula(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", ("name", "=score", "n"), [(text, -0.5, -3) for text in TEXTS])
    rows = read_rows(tmp_path / "t.csv")
    assert [row["name"] for row in rows] == TEXTS
    assert {(row["=score"], row["n"]) for row in rows} == {("-0.5", "-3")}
    with open(tmp_path / "t.csv", encoding="utf-8", newline="") as file:
        shown = [row[0] for row in csv.reader(file)][1:]
    assert [text for text in shown if text[0] in "=+-@\t\r"] == ["-5"]  # a number
    assert shown[0] == "'" + HOSTILE


@given(st.text(alphabet="'=+-@\t\r\n,\"a1").filter(bool))
@example("'")
def test_any_name_comes_back(name: str) -> None:
    (_, read), *more = csv.reader(csv_text(("x", "y"), [(0, name)]).splitlines(keepends=True)[1:])
    assert not more
    assert read in (name, f"'{name}")


def test_domains_by_hand_keep_hostile_names(tmp_path: Path) -> None:
    names = ["=1+1", "@b", "'-c", "<b>"]
    write_custom(tmp_path, [Domain(name, 1_000_000) for name in names])
    assert [domain.name for domain in read_custom(tmp_path / "domains.csv", TargetSettings())] == names
    assert [row["name"] for row in read_csv(tmp_path / "domains.csv", ("name",))] == names


def test_the_mixtures_table_guards_names_alone() -> None:
    row = {"name": "=x", "weight": 0.5, "natural": 0.25, "cap": 1.0, "tokens": 7, "repetitions": -0.0}
    assert mixture_table([row]).splitlines()[1] == "'=x,0.5,0.25,1.0,7,-0.0"
