"""What goes wrong, and what a person then sees: faults × outcomes.

    python bench/faults.py [--only inputs damage kills store s3 million] [--kills 100] [--documents 1000000]
                           [--corpus FILE] [--megabytes 200] [--repeats 3]

inputs: bad settings, corpora, tasks, scores, tables and calls; each must end in a sentence with its fix, without a
traceback, and change nothing that was there. damage: files of a finished workspace and of an export, each damaged in
one way; `climb check`, the next run or the export must name it. kills: -9 and TERM of the process, of a worker or of
the whole group, at random moments of run, export, validate and import; the answer and the exported bytes must be those
of an undisturbed run, and nothing may be left behind. store: a corpus behind a server that fails one request in five.
s3: the same of S3, for corpus and export, with so much of a JSONL corpus (columns text and domain) in 16 files; needs
the extra test-s3. million: a run up to the packed tokens over so many short documents: seconds and memory. Writes
bench/results/faults.json after each part; rows of parts that are not asked for stay.
"""

import argparse
import contextlib
import io
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _faults_damage import damaged
from _faults_inputs import Case, Ground, all_cases
from _faults_kills import killed
from _faults_store import behind_a_bad_s3, behind_a_bad_server, many_documents
from _results import FOLDER, write_results
from openclimb.cli.main import main as climb
from openclimb.testing.fixtures import make_tiny_tasks, make_tiny_workspace
from openclimb.workspace.files import file_checksum, read_json

DATA = Path(__file__).parent.parent / "tests" / "data"
TOLD = "told, with its fix"


def judged(case: Case, ground: Ground) -> tuple[str, str]:
    """Run one case; return what came of it (TOLD is right) and what was said."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        commands = case.build(ground)
    before = checksums(ground.folder)
    said, status = "", 0
    for command in commands:
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = climb(command)
        except Exception as error:  # what a person would see as a traceback
            return "traceback", f"{type(error).__name__}: {error}"
        said = err.getvalue()
        if status:
            break
    after = checksums(ground.folder)
    if status == 0:
        return "not seen", ""
    if "Traceback" in said:
        return "traceback", said
    if not said.startswith("error: ") or "\nfix: " not in said:
        return "no fix", said
    gone = [name for name, content in before.items() if after.get(name) != content]
    return ("changed what was there", ", ".join(gone)) if gone else (TOLD, said)


def checksums(folder: Path) -> dict[str, str]:
    """Return the content of every file below a folder but locks and the record of what a run read last."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): file_checksum(path) for path in paths}


def inputs(base: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Try every bad input; return a row a kind."""
    tasks, finished = prepared(base)
    outcomes: dict[str, Counter[str]] = {}
    for i, case in enumerate(all_cases()):
        folder = base / f"case-{i:03d}"
        folder.mkdir()
        outcome, said = judged(case, Ground(folder, DATA / "corpus.jsonl", tasks, finished))
        outcomes.setdefault(case.kind, Counter())[outcome] += 1
        if outcome != TOLD or options.verbose:
            print(f"  {case.kind}: {case.name}: {outcome}: {said.strip()[:300]}", flush=True)
    return [
        {"case": f"bad input: {kind}", "metric": TOLD, "value": found[TOLD], "reference": found.total()}
        for kind, found in outcomes.items()
    ]


def prepared(base: Path) -> tuple[Path, Path]:
    """Return the tasks, and a workspace that was run to its end."""
    tasks = make_tiny_tasks(base / "tasks", DATA / "passages.jsonl")
    root = make_tiny_workspace(base / "finished", DATA / "corpus.jsonl", tasks)
    if climb(["run", str(root), "--quiet"]):
        raise RuntimeError("the run that is to be damaged failed by itself")
    return tasks, root


def damage(base: Path, _: argparse.Namespace) -> list[dict[str, Any]]:
    return damaged(base, prepared(base)[1])


def kills(base: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    return killed(base, options.kills)


def store(base: Path, _: argparse.Namespace) -> list[dict[str, Any]]:
    tasks = make_tiny_tasks(base / "tasks", DATA / "passages.jsonl")
    return behind_a_bad_server(base, DATA / "corpus.jsonl", tasks)


def s3(base: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    tasks = make_tiny_tasks(base / "tasks", DATA / "passages.jsonl")
    return behind_a_bad_s3(base, options.corpus, tasks, options.megabytes, options.repeats)


def million(base: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    tasks = make_tiny_tasks(base / "tasks", DATA / "passages.jsonl")
    return many_documents(base, DATA / "corpus.jsonl", tasks, options.documents)


PARTS: dict[str, Callable[[Path, argparse.Namespace], list[dict[str, Any]]]] = {
    "inputs": inputs,
    "damage": damage,
    "kills": kills,
    "store": store,
    "s3": s3,
    "million": million,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--corpus", type=Path, default=DATA / "corpus.jsonl", help="of s3: JSONL, text and domain")
    parser.add_argument("--megabytes", type=int, default=200, help="of s3: so much of the corpus")
    parser.add_argument("--repeats", type=int, default=3, help="of s3: pairs of runs")
    parser.add_argument("--verbose", action="store_true", help="print what every case said")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for part in options.only:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = PARTS[part](Path(folder), options)
        rows += [*found, {"case": part, "metric": "seconds", "value": round(time.monotonic() - began, 1)}]
        for row in found:
            print(f"{row['case']:<52} {row['metric']:<34} {row['value']!s:>10} {row.get('reference', '')}", flush=True)
        write_results("faults", [*others(rows, options.out / "faults.json"), *rows], options.out)


def others(rows: Sequence[dict[str, Any]], kept: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of results whose cases are not among these."""
    cases = {row["case"] for row in rows}
    return [row for row in read_json(kept)["rows"] if row["case"] not in cases] if kept.is_file() else []


if __name__ == "__main__":
    main()
