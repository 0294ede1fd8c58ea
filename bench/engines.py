"""Other engines beside `local`, each with as many workers as it: the label pass, trials of ten seconds, a whole run.

    python bench/engines.py --corpus corpus.jsonl [--model STATIC_MODEL] [--engines slurm ray] [--documents 20000]
        [--demo FOLDER [--only-demo]]

Label pass: documents a second of `label()`, turn about with `local`, best of three; the workers are there and have
their embedder, as in bench/label.py. Trials: seconds beyond ten that each of six calls of ten seconds takes with two
workers, of which the last includes the way back of its result. Whole run: a workspace of seconds from the first stage
to the exported dataset, its seconds, and how many of its files differ from those that `local` makes; with --demo, the
folder of `make demo`, the same for its job.

What an engine needs to be reached is in `_engines_NAME.py`: `lacks()` says why it cannot be had here ("" where it
can), `sections(workers)` gives its sections of climb.toml, or `rows(folder)` measures all by itself, with nodes and
drivers that are killed (Ray). Engines that cannot be had are left out, and their rows of
before stay in bench/results/engines.json.
"""

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from _demo_engines import demo_rows, made_on
from _results import FOLDER, write_results
from label import cut_corpus
from openclimb.clustering.fit import fit
from openclimb.clustering.label import label
from openclimb.config.load import from_dict
from openclimb.config.scales import preset
from openclimb.config.schema import Config
from openclimb.corpus.reading import units as corpus_units
from openclimb.corpus.reading.units import read_units, survey
from openclimb.engines.engine import Engine, engine_of
from openclimb.engines.local import LocalEngine
from openclimb.progress import Progress
from openclimb.testing.fixtures import make_tiny_tasks, make_tiny_workspace
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import file_checksum, read_json

ENGINES = sorted(path.stem.removeprefix("_engines_") for path in Path(__file__).parent.glob("_engines_*.py"))
TURNS, WORKERS = 3, 2
TRIAL_SECONDS, TRIALS = 10.0, 6
DATA = Path(__file__).parent.parent / "tests" / "data"


@contextmanager
def opened(sections: dict[str, dict[str, Any]]) -> Iterator[Engine]:
    """Give the engine of these sections of climb.toml."""
    config = from_dict({"scale": "demo", **sections})
    with engine_of(config.run, config.engine, lambda sentence: print(f"  {sentence}", flush=True)) as engine:
        yield engine


def local_sections(workers: int) -> dict[str, dict[str, Any]]:
    """Return what `local` needs."""
    return {"run": {"engine": "local", "workers": workers}}


def label_rows(name: str, part: ModuleType, root: Path, corpus: Path, model: str, n: int) -> list[dict[str, Any]]:
    """Return documents a second of the label pass beside those of `local`."""
    n = cut_corpus(corpus, n, root / "cut.jsonl")
    corpus_units.UNIT_BYTES = max(200_000, (root / "cut.jsonl").stat().st_size // (8 * WORKERS))
    config = preset("laptop")
    embed = replace(config.embed, model=model) if model else replace(config.embed, embedder="hashing", model="")
    config = replace(
        config,
        corpus=replace(config.corpus, paths=(str(root / "cut.jsonl"),)),
        embed=embed,
        clusters=replace(config.clusters, sample=3000, k=64),
    )
    for folder in ("corpus", "clusters"):
        (root / folder).mkdir()
    survey(StageContext(root / "corpus", LocalEngine(1), Progress()), config.corpus)
    units = read_units(root / "corpus")
    context = StageContext(root / "clusters", LocalEngine(WORKERS), Progress())
    fit(context, units, config.corpus, config.embed, config.clusters, config.tokens)
    context.engine.release()
    seconds: dict[str, list[float]] = {"local": [], name: []}
    with opened(local_sections(WORKERS)) as local, opened(part.sections(WORKERS)) as other:
        for _ in range(TURNS + 1):  # the first starts the workers, and is not counted
            seconds["local"].append(label_once(config, units, root, local))
            seconds[name].append(label_once(config, units, root, other))
    ours, theirs = (n / min(seconds[each][1:]) for each in (name, "local"))
    case = f"{name}: label pass, {n} documents, {WORKERS} workers"
    return [
        {"case": case, "metric": "documents a second", "value": round(ours, 1), "reference": round(theirs, 1)},
        {
            "case": case,
            "metric": "seconds of the first pass, with the start of the workers",
            "value": round(seconds[name][0], 1),
            "reference": round(seconds["local"][0], 1),
        },
    ]


def label_once(config: Config, units: list[Any], root: Path, engine: Engine) -> float:
    """Label all units in a fresh folder; return the seconds."""
    with tempfile.TemporaryDirectory(dir=root) as out:
        began = time.perf_counter()
        context = StageContext(Path(out), engine, Progress())
        label(context, units, root / "clusters", config.corpus, config.embed, config.quality)
        return time.perf_counter() - began


def trial_rows(name: str, part: ModuleType, root: Path) -> list[dict[str, Any]]:
    """Return the seconds that trials of ten seconds take beyond those, workers and driver as they are in a search."""
    with opened(part.sections(WORKERS)) as engine:
        list(engine.map(time.sleep, [0.1] * WORKERS, folder=root))
        began = time.perf_counter()
        list(engine.map(time.sleep, [TRIAL_SECONDS] * TRIALS, folder=root))
        each = (time.perf_counter() - began) / (TRIALS / WORKERS)
    case = f"{name}: trials of {TRIAL_SECONDS:g} s, {TRIALS} with {WORKERS} workers"
    return [{"case": case, "metric": "seconds over, a trial", "value": round(each - TRIAL_SECONDS, 3)}]


def run_rows(name: str, part: ModuleType, root: Path) -> list[dict[str, Any]]:
    """Return the seconds of a whole run and export beside `local`'s, and how many files differ."""
    tasks = make_tiny_tasks(root / "tasks", DATA / "passages.jsonl")
    seconds, made = {}, {}
    for each, sections in (("local", local_sections(WORKERS)), (name, part.sections(WORKERS))):
        place = make_tiny_workspace(root / each, DATA / "corpus.jsonl", tasks, **sections)
        began = time.perf_counter()
        for command in (["run"], ["export", "--tokens", "100K", "--out", str(place / "data")]):
            line = [sys.executable, "-m", "openclimb.cli.main", command[0], str(place), *command[1:], "--quiet"]
            subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        seconds[each] = time.perf_counter() - began
        files = [place / "mixture" / "mixture.json", *(path for path in (place / "data").rglob("*") if path.is_file())]
        made[each] = {str(path.relative_to(place)): file_checksum(path) for path in files if path.name != "record.json"}
    differ = sum(made["local"].get(path) != made[name].get(path) for path in {*made["local"], *made[name]})
    case = f"{name}: a whole run and its export"
    return [
        {"case": case, "metric": "files that differ from local's", "value": differ, "reference": None},
        {
            "case": case,
            "metric": "seconds",
            "value": round(seconds[name], 1),
            "reference": round(seconds["local"], 1),
        },
    ]


def main() -> None:
    """Measure the engines that can be had, print the rows, write them beside those of the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--model", default="", help="folder of a model2vec static model; else the hashing embedder")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--root", type=Path, help="a folder that all nodes see; default: a temporary one here")
    parser.add_argument("--demo", type=Path, help="folder of `make demo`, whose job is run on each engine")
    parser.add_argument("--only-demo", action="store_true", help="nothing else")
    options = parser.parse_args()
    kept = FOLDER / "engines.json"
    rows = read_json(kept)["rows"] if kept.is_file() else []
    local: tuple[float, dict[str, str]] | None = None
    on_demo: list[dict[str, Any]] = []
    for name in options.engines:
        part = importlib.import_module(f"_engines_{name}")
        if why := part.lacks():
            print(f"{name}: not measured: {why}")
            continue
        found = []
        with tempfile.TemporaryDirectory(dir=options.root) as folder:
            if options.demo:
                local = local or made_on(options.demo, Path(folder) / "demo-local", local_sections(WORKERS))
                with part.reached(WORKERS) as sections:
                    on_demo = demo_rows(name, sections, options.demo, Path(folder) / "demo", local)
                print("\n".join(json.dumps(row) for row in on_demo), flush=True)
            if options.only_demo:
                cases = {row["case"] for row in on_demo}
                rows = [row for row in rows if row["case"] not in cases] + on_demo
                continue
            if hasattr(part, "rows"):
                found = [{**row, "case": f"{name}: {row['case']}"} for row in part.rows(Path(folder))]
            for measure in () if found else ("label", "trial", "run"):
                root = Path(folder) / measure
                root.mkdir()
                (root / "climb.toml").touch()  # as in a workspace: its stages share their workers
                if measure == "label":
                    found += label_rows(name, part, root, options.corpus, options.model, options.documents)
                else:
                    found += {"trial": trial_rows, "run": run_rows}[measure](name, part, root)
        print("\n".join(json.dumps(row) for row in found))
        old = [row for row in rows if row["case"].startswith(f"{name}: ")]
        kept_demo = [row for row in old if not options.demo and row["case"].startswith(f"{name}: the demo")]
        rows = [row for row in rows if row not in old] + found + (on_demo or kept_demo)
    write_results("engines", rows)


if __name__ == "__main__":
    main()
