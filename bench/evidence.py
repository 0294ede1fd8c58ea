"""Evidence on the test bed: three goals, each searched with small proxies and judged by larger targets.

    python bench/evidence.py --bed DIR --corpus corpus.jsonl --root RUN [--scale reduced|full] [--objective general …]

DIR holds the evaluation suite (as `climb tasks` reads it). RUN gets a workspace for each goal: all have the same
corpus, domains, tokens and tasks and differ only in `tasks.weights`. The first one makes the stages; a later one takes
them from it, and with them the trials that do not depend on the goal: the first iteration of the search, and in the
validation the random mixtures of the baselines and the targets of natural, uniform and DoReMi. RUN is kept; the bench
goes on from it when it was stopped. Writes bench/results/evidence.json and the tables of docs/evidence.md; at scale
`quick`, a smoke test of minutes, both go to RUN. `--only-read` writes them from what is finished, and runs nothing.
`--no-hint` searches without low-fidelity scores (`search.low_fidelity`), writes
bench/results/evidence_no_hint.json and leaves the page.
"""

import argparse
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import openclimb
from _evidence_tables import embed, tables
from _results import FOLDER, write_results
from openclimb.config.schema import ProxySettings
from openclimb.config.sizes import n_parameters
from openclimb.corpus.domains import read_domains
from openclimb.progress import choose_progress
from openclimb.stats.compare import rank_correlation
from openclimb.tasks.olmes import convert
from openclimb.validation.judge import FOUND
from openclimb.workspace.files import file_checksum, read_json, write_text
from openclimb.workspace.results import (
    Answer,
    Diagnostics,
    Validation,
    ValidationRow,
    read_answer,
    read_diagnostics,
    read_validation,
)
from openclimb.workspace.trials import read_trials, trial_folder

# Of each goal's tasks those whose scores differ least by seed: long answers (docs/decisions/README.md).
GOALS = {
    "general": ("hellaswag", "piqa", "socialiqa"),
    "science": ("arc_easy", "arc_challenge", "mmlu_stem"),
    "code": ("codex_humaneval", "codex_mbpp"),
}
TASKS = tuple(task for tasks in GOALS.values() for task in tasks)
AGAINST = ("natural", "uniform", "best-of-n", "regmix", "olmix", "recipe", "doremi")
SHARED = ("corpus", "clusters", "labels", "domains", "tokens")  # stages that do not depend on the goal
PAGE = Path(__file__).parent.parent / "docs" / "evidence.md"
FAVOURED = 4  # domains named as favoured, and as many as avoided
ByMixture = dict[tuple[float, ...], dict[int, Mapping[str, float]]]  # weights → seed → task → score
LEAST_RATIO = 8  # a target has at least so many times the proxy's parameters and tokens


@dataclass(frozen=True)
class Scale:
    """Settings of the workspaces beside a preset, and those of [proxy] that the target has otherwise."""

    preset: str
    settings: Mapping[str, Mapping[str, Any]]
    target: Mapping[str, Any]
    seeds: int = 5


# sure = 1: all rounds of the finalists are played, so that the search for each goal takes the same number of trials,
# the baselines draw the same number of mixtures, and their trials are shared.
SCALES = {
    "quick": Scale(
        "demo",
        {
            "clusters": {"k": 8, "sample": 2000},
            "domains": {"merge_to": 5},
            "target": {"token_budget": 1_000_000},
            "tokens": {"vocab_size": 512},
            "tasks": {"max_items": 20},
            "proxy": {"width": 32, "depth": 1, "token_budget": 16_384},
            "search": {"trials": [14, 5]},  # with the finalists' enough for the recipe's first round
            "selection": {"finalists": 2, "seeds": 2, "sure": 1.0},
        },
        {"width": 96, "depth": 2, "heads": 3, "token_budget": 131_072},
        seeds=2,
    ),
    "reduced": Scale(
        "demo",
        {
            "clusters": {"k": 32, "sample": 20_000},
            "domains": {"merge_to": 12},
            "target": {"token_budget": 20_000_000},
            "tasks": {"max_items": 250},
            "proxy": {"token_budget": 160_000},
            "search": {"trials": [10, 6, 4]},
            "selection": {"finalists": 2, "sure": 1.0},
        },
        {"width": 176, "depth": 4, "heads": 4, "token_budget": 1_280_000, "learning_rate": 2.9e-3},
    ),
    "full": Scale(
        "laptop",
        {"selection": {"sure": 1.0}},
        {"width": 320, "depth": 4, "heads": 5, "token_budget": 4_000_000, "learning_rate": 1.6e-3},
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bed", type=Path, required=True, help="folder or wheel of the evaluation suite")
    parser.add_argument("--corpus", nargs="+", required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--scale", choices=SCALES, default="reduced")
    parser.add_argument("--objective", nargs="+", choices=GOALS, default=list(GOALS))
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: one a core")
    parser.add_argument(
        "--no-hint", action="store_true", help="search without low-fidelity scores, in a RUN of its own"
    )
    parser.add_argument("--only-read", action="store_true")
    options = parser.parse_args()
    scale = SCALES[options.scale]
    if options.no_hint:
        scale = replace(
            scale, settings={**scale.settings, "search": {**scale.settings.get("search", {}), "low_fidelity": ""}}
        )
    if not options.only_read:
        tasks = write_tasks(options.bed, options.root / "tasks")
        for goal in options.objective:
            paths = [str(Path(path).absolute()) for path in options.corpus]
            prepare(options.root, goal, scale, paths, tasks, options.workers)
            climb(options.root / goal, scale)
    rows = [{"bench": "evidence", **row} for row in read_rows(options.root)]
    quick = options.scale == "quick"
    name = "evidence_no_hint" if options.no_hint else "evidence"
    text = tables(read_json(write_results(name, rows, options.root if quick else FOLDER)), GOALS)
    if quick or options.no_hint:
        write_text(options.root / "evidence.md", text)
    else:
        embed(text, PAGE)
    print(text)


def write_tasks(bed: Path, out: Path) -> Path:
    """Convert the tasks of all goals to `out`, whole or not at all."""
    if not out.exists():
        partial = out.with_name("tasks.partial")
        shutil.rmtree(partial, ignore_errors=True)
        convert(bed, partial, TASKS)
        partial.rename(out)
    return out


def prepare(run: Path, goal: str, scale: Scale, corpus: list[str], tasks: Path, workers: int) -> None:
    """Make the workspace of a goal, with what a finished one of another goal can give it."""
    root = run / goal
    if (root / "climb.toml").exists():
        return
    finished = [run / other for other in GOALS if (run / other / "validation" / "record.json").exists()]
    if finished and not root.exists():
        partial = run / f"{goal}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        inherit(finished[-1], partial)  # the last has the trials of those before it
        partial.rename(root)
    settings = {name: dict(values) for name, values in scale.settings.items()}
    settings["corpus"] = {"paths": corpus}
    settings["embed"] = {"embedder": "hashing", **settings.get("embed", {})}  # no download, no labels
    wanted = {task: float(task in GOALS[goal]) for task in TASKS}
    settings["tasks"] = {**settings.get("tasks", {}), "paths": [f"{tasks.absolute()}/*.jsonl"], "weights": wanted}
    settings["run"] = {"workers": workers}
    openclimb.init(root, scale.preset, **settings)


def inherit(old: Path, new: Path) -> None:
    """Copy the stages that no goal changes, and the trials that the search for any goal asks for.

    No more of them: validation counts the search trials in trials/ as the cost of our search. The validation goes in
    as one that was moved aside, from which `validate` takes what fits.
    """
    for stage in SHARED:
        shutil.copytree(old / stage, new / stage)
    for trial in read_trials(old / "trials"):
        if (trial.role, trial.iteration) == ("search", 0) or trial.role in ("natural", "uniform"):
            shutil.copytree(trial_folder(old / "trials", trial.number), trial_folder(new / "trials", trial.number))
    shutil.copytree(old / "validation", new / "validation.old-1")


def climb(root: Path, scale: Scale) -> None:
    """Search and validate; what is done is not done again."""
    opened = openclimb.open(root)
    progress = choose_progress(quiet=False, as_json=False)
    try:
        print(f"{root.name}: {opened.run(progress).sentence}", flush=True)
        check_target(root, opened.config.proxy, replace(opened.config.proxy, **scale.target))
        print(f"{root.name}: {opened.validate(AGAINST, scale.seeds, scale.target, progress).sentence}", flush=True)
    finally:
        progress.close()


def check_target(root: Path, proxy: ProxySettings, target: ProxySettings) -> None:
    """Raise ValueError for a target that is not LEAST_RATIO times the proxy."""
    vocabulary = read_json(root / "tokens" / "domains.json")["vocab_size"]
    larger = n_parameters(target.width, target.depth, vocabulary) / n_parameters(proxy.width, proxy.depth, vocabulary)
    longer = target.token_budget / proxy.token_budget
    if min(larger, longer) < LEAST_RATIO:
        raise ValueError(f"the target has {larger:.2f} × the proxy's parameters, {longer:.2f} × its tokens")


def read_rows(run: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of every goal that is finished, and those of all of them together."""
    roots = {goal: run / goal for goal in GOALS if (run / goal / "validation" / "record.json").exists()}
    for goal, root in roots.items():
        table = read_validation(root)
        yield {"case": goal, "metric": "sentence", "value": table.sentence}
        yield from size_rows(goal, root, table)
        for row in table.rows:
            yield from mixture_rows(f"{goal}/{row.name}", row)
        yield {"case": goal, "metric": "rank correlation, these mixtures", "value": table.rank_correlation}
        for found in read_diagnostics(root):
            yield from iteration_rows(goal, found)
        answer = read_answer(root)
        yield {"case": goal, "metric": "answer, expected", "value": answer.expected}
        yield from domain_rows(goal, root, answer)
    yield from shared_rows(roots)


def size_rows(goal: str, root: Path, table: Validation) -> Iterator[dict[str, Any]]:
    """Yield parameters and tokens of the targets, with the proxies' as reference."""
    proxy = openclimb.open(root).config.proxy
    parameters = n_parameters(proxy.width, proxy.depth, read_json(root / "tokens" / "domains.json")["vocab_size"])
    yield {"case": goal, "metric": "target parameters", "value": table.target.parameters, "reference": parameters}
    budget = table.target.token_budget
    yield {"case": goal, "metric": "target tokens", "value": budget, "reference": proxy.token_budget}
    yield {"case": goal, "metric": "target seeds", "value": table.seeds}


def mixture_rows(case: str, row: ValidationRow) -> Iterator[dict[str, Any]]:
    """Yield what the validation says of one mixture."""
    yield {"case": case, "metric": "target score", "value": row.score}
    if row.interval:
        yield {"case": case, "metric": "target score, low", "value": row.interval[0]}
        yield {"case": case, "metric": "target score, high", "value": row.interval[1]}
    yield {"case": case, "metric": "proxy score", "value": row.proxy_score}
    yield {"case": case, "metric": "probability best", "value": row.probability_best}
    yield {"case": case, "metric": "search trials", "value": row.search_trials}
    yield {"case": case, "metric": "search tokens", "value": row.search_tokens}
    if row.margin:
        yield {"case": case, "metric": "found minus it", "value": row.margin.mean}
        for end, value in zip(("low", "high"), row.margin.interval, strict=True):
            yield {"case": case, "metric": f"found minus it, interval {end}", "value": value}
        yield {"case": case, "metric": "found minus it, p", "value": row.margin.p}
    if row.same_mixture:
        yield {"case": case, "metric": "verdict", "value": "the same mixture"}


def iteration_rows(goal: str, found: Diagnostics) -> Iterator[dict[str, Any]]:
    """Yield a point of the search curve."""
    case = f"{goal}/iteration {found.iteration + 1}"
    yield {"case": case, "metric": "trials so far", "value": len(found.trials)}
    yield {"case": case, "metric": "best measured", "value": found.best_measured}
    yield {"case": case, "metric": "best expected", "value": found.best_predicted}
    yield {"case": case, "metric": "rank correlation, cross-validated", "value": found.rank_correlation["objective"]}


def domain_rows(goal: str, root: Path, answer: Answer) -> Iterator[dict[str, Any]]:
    """Yield the weights of the domains that the mixture favours most and avoids most, with their words."""
    words = {domain.name: " ".join(domain.words) for domain in read_domains(root / "domains")}
    ordered = sorted(answer.domains, key=lambda row: row.natural - row.weight)
    for row in [*ordered[:FAVOURED], *ordered[FAVOURED:][-FAVOURED:]]:
        case = f"{goal}/{row.name}"
        yield {"case": case, "metric": "weight", "value": row.weight, "reference": row.natural}
        yield {"case": case, "metric": "words", "value": words[row.name]}


def shared_rows(roots: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    """Yield what all goals' trials say together: each mixture found under each goal, ranks, what was trained."""
    targets: ByMixture = {}
    proxies: ByMixture = {}
    copies: dict[str, set[str]] = {}
    found = {}
    for goal, root in roots.items():
        found[goal] = found_weights(root)
        budget = openclimb.open(root).config.proxy.token_budget
        for folder in (root / "trials", root / "validation" / "trials"):
            for trial in read_trials(folder):
                path = trial_folder(folder, trial.number) / "scores.json"
                if not path.is_file():
                    continue
                copies.setdefault(trial.identity, set()).add(file_checksum(path))  # a copy has the original's seconds
                if folder.parent != root and trial.role in (FOUND, *AGAINST):  # one set of seeds for all
                    report = {task: -measures["bpb"] for task, measures in read_json(path)["report"].items()}
                    of, scores = (proxies, trial.scores) if trial.token_budget == budget else (targets, report)
                    of.setdefault(trial.weights, {})[trial.seed] = scores
    for goal in roots:
        for other, weights in found.items():
            case = f"{goal}/found for {other}"
            yield {"case": case, "metric": "target score of it", "value": mean(targets[weights], GOALS[goal])}
        small, large = (
            {str(weights): mean(by_seed, GOALS[goal]) for weights, by_seed in of.items()} for of in (proxies, targets)
        )
        yield {
            "case": goal,
            "metric": "rank correlation, mixtures of all goals",
            "value": rank_correlation(small, large),
        }
    yield {"case": "all", "metric": "mixtures trained as targets", "value": len(targets)}
    yield {"case": "all", "metric": "trials", "value": len(copies)}
    yield {"case": "all", "metric": "trials trained twice", "value": sum(len(sums) > 1 for sums in copies.values())}


def found_weights(root: Path) -> tuple[float, ...]:
    """Return the weights of the found mixture, in the order of the domains."""
    rows = {row.name: row for row in read_validation(root).rows}
    return tuple(rows[FOUND].weights.values())


def mean(by_seed: Mapping[int, Mapping[str, float]], tasks: tuple[str, ...]) -> float:
    """Return the mean score over seeds and tasks."""
    return sum(scores[task] for scores in by_seed.values() for task in tasks) / (len(by_seed) * len(tasks))


if __name__ == "__main__":
    main()
