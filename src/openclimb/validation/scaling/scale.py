"""`climb scaling`: the found mixture and others at several sizes and token budgets, as the paper's Figure 1.

Reads a finished workspace and, for answers of other searches, validation/. Writes `scaling/`: trials/, scaling.json,
scaling.csv and scaling.svg. What is done is not done again, to the trial.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from openclimb import seeds
from openclimb.config.schema import Config
from openclimb.config.sizes import SHAPES, n_parameters
from openclimb.corpus.custom_domains import weighed_domains
from openclimb.engines.engine import Engine
from openclimb.errors import ConfigError, InputError, SearchError, WorkspaceError, nearest
from openclimb.mixture import Domain
from openclimb.objectives.run import read_items
from openclimb.progress import Progress
from openclimb.recipes import current_recipes, stop_if_unfinished, trial_data
from openclimb.search.space.region import natural_mixture, uniform_mixture
from openclimb.stats.compare import Comparison, Margin, Scored, correct, read_scored
from openclimb.stats.intervals import Estimate
from openclimb.validation.compare import MOST_SEEDS, check_shape, target_of
from openclimb.validation.costs import Cost, Costs
from openclimb.validation.judge import FOUND, Mixture, difference
from openclimb.validation.scaling.curves import Cell, curves_of
from openclimb.validation.scaling.table import NATURAL, Point, Scaling, sentence, write_scaling
from openclimb.validation.targets import Targets
from openclimb.workspace.damage import set_damaged_aside
from openclimb.workspace.files import read_json, sweep
from openclimb.workspace.records import Workspace
from openclimb.workspace.results import VALIDATION, Objective, read_answer, read_validation
from openclimb.workspace.tables import read_csv
from openclimb.workspace.trials import Trial, read_trials, reopen, weights_key

FOLDER = "scaling"
VERSION = 1
OWN = "own"  # the size of the workspace's proxy
FREE = {NATURAL: natural_mixture, "uniform": uniform_mixture}  # mixtures that need no search


@dataclass(frozen=True)
class ScalingPlan:
    """What is trained: sizes of the table or "own", token budgets, other mixtures by name, files of mixtures, seeds."""

    tokens: tuple[int, ...]
    sizes: tuple[str, ...] = (OWN,)
    against: tuple[str, ...] = tuple(FREE)
    files: tuple[Path, ...] = ()
    seeds: int = 5


def targets_of(config: Config, plan: ScalingPlan) -> dict[Cell, Config]:
    """Return the settings of each size and token budget. Raises ConfigError for a plan that cannot be carried out."""
    if not 2 <= plan.seeds <= MOST_SEEDS:
        raise ConfigError(f"{plan.seeds} seeds cannot tell a difference from noise", f"use 3 to {MOST_SEEDS}")
    if not plan.tokens or not plan.sizes:
        raise ConfigError("there is no token budget or size", "--tokens 1M,2M,4M,8M --sizes own,2M")
    found = {}
    for size in plan.sizes:
        if size not in (OWN, *SHAPES):
            raise ConfigError(f"size '{size}' is not known{nearest(size, SHAPES)}", f"use {OWN} or {', '.join(SHAPES)}")
        for tokens in plan.tokens:
            given = {"token_budget": tokens, **({} if size == OWN else {"size": size})}
            found[size, tokens] = replace(target_of(config, given), tokens=config.tokens)
            check_shape(found[size, tokens])
    if len(found) < len(plan.sizes) * len(plan.tokens):
        raise ConfigError("sizes and token budgets must be named once each", "--tokens 1M,2M,4M,8M")
    return found


def cost(workspace: Workspace, plan: ScalingPlan) -> dict[str, Cost]:
    """Return what each size takes. Changes nothing."""
    config, found = workspace.config(), dict[str, Cost]()
    n = plan.seeds * (1 + len({*plan.against, NATURAL}) + len(plan.files))
    wanted, costs = targets_of(config, plan), Costs(workspace.root, config)
    for (size, _), target in wanted.items():
        found[size] = found.get(size, Cost()) + costs.of_targets(target, n)
    return found


def scale(
    workspace: Workspace, plan: ScalingPlan, engine: Engine, progress: Progress, *, retry: bool = False
) -> Scaling:
    """Train what is not trained yet, write the table and return it. `retry`: trials that failed are tried again.

    Raises ConfigError for a plan that cannot be carried out, WorkspaceError where there is no answer, or no validation
    with a mixture that is named, StaleError where the answer is of other settings.
    """
    config = workspace.config()
    wanted = targets_of(config, plan)
    with workspace.hold(note=progress.note):
        sweep(workspace.root)
        recipes = current_recipes(workspace, config)
        stop_if_unfinished(workspace, config, recipes)
        out, fingerprint = workspace.root / FOLDER, recipes["mixture"].fingerprint
        for said in set_damaged_aside(out / "trials"):
            progress.note(said)
        if retry:
            reopen(out / "trials", read_trials(out / "trials"))
        targets = Targets(workspace.root, config, trial_data(recipes), out, engine, progress)
        mixtures = mixtures_of(workspace.root, config, plan, targets.domains, fingerprint)
        fresh = seeds.targets(config.seed, plan.seeds)
        trials = {
            (size, tokens): targets.with_seeds(target, mixtures, fresh, FOLDER, f"{size}, {tokens:,} tokens")
            for (size, tokens), target in wanted.items()
        }
        table = _table(workspace.root, config, plan, mixtures, trials, fingerprint)
        write_scaling(out, table)
        targets.clear()
    return table


def mixtures_of(
    root: Path, config: Config, plan: ScalingPlan, domains: Sequence[Domain], fingerprint: str
) -> list[Mixture]:
    """Return the found mixture, natural, those that are named and those of the files; one mixture once, first name.

    Raises WorkspaceError for one that validation/ does not have, InputError for a file that is no mixture.
    """
    names = [domain.name for domain in domains]
    answer = read_answer(root).weights
    found = {FOUND: tuple(answer[name] for name in names)}
    for name in dict.fromkeys((NATURAL, *plan.against)):
        if name in FREE:
            found[name] = tuple(FREE[name](domains, config.constraints).tolist())
        else:
            weights = _validated(root, name, fingerprint)
            found[name] = tuple(weights[one] for one in names)
    for path in plan.files:
        if path.stem in found:
            raise InputError(f"{path}: another mixture is named '{path.stem}'", "give the file another name")
        found[path.stem] = read_mixture(path, names)
    return [Mixture(name, weights) for name, weights in found.items()]


def _validated(root: Path, name: str, fingerprint: str) -> Mapping[str, float]:
    """Return the weights that another search came to when this answer was validated."""
    table = read_validation(root) if (root / VALIDATION).is_file() else None
    rows = [row for row in table.rows if row.name == name] if table and table.mixture == fingerprint else []
    if not rows:
        raise WorkspaceError(
            f"there is no mixture '{name}' of this answer's validation",
            f"climb validate {root} --against {name} searches by its rules; {', '.join(FREE)} need no search",
        )
    return rows[0].weights


def read_mixture(path: Path, names: Sequence[str]) -> tuple[float, ...]:
    """Return the weights in a table with the columns domain and weight, as mixture.csv has them; others are 0.

    Raises InputError for an unknown domain, a weight that is no share, and weights that do not sum to 1.
    """
    weights = dict.fromkeys(names, 0.0)
    for row in read_csv(path, ("domain", "weight")):
        name = row["domain"]
        if name not in weights:
            raise InputError(f"{path}: there is no domain '{name}'{nearest(name, names)}", "see mixture/mixture.csv")
        try:
            weights[name] += float(row["weight"])
        except ValueError:
            raise InputError(f"{path}: the weight of '{name}' is no number: {row['weight']}", "write 0.25") from None
    total = sum(weights.values())
    if not (all(0 <= weight <= 1 for weight in weights.values()) and abs(total - 1) < 0.01):
        raise InputError(f"{path}: the weights are no mixture: their sum is {total:.4g}", "shares from 0 to 1, sum 1")
    return tuple(weight / total for weight in weights.values())


def _table(
    root: Path,
    config: Config,
    plan: ScalingPlan,
    mixtures: Sequence[Mixture],
    trials: Mapping[Cell, Mapping[str, list[Trial]]],
    fingerprint: str,
) -> Scaling:
    share, metric = read_answer(root).objective.tasks, config.tasks.metric
    first = {weights_key(one.weights): one.name for one in reversed(mixtures)}  # one mixture under two names is one
    names = [one.name for one in mixtures if first[weights_key(one.weights)] == one.name]
    folder = root / FOLDER / "trials"
    lost = sorted({name for some in trials.values() for name in names if not some[name]})
    if lost:
        raise SearchError(f"no trial of {', '.join(lost)} has scores at some size", f"see {folder}; then --retry")
    scored: dict[Cell, dict[str, Scored]] = {}
    for cell, some in trials.items():
        items = read_items(folder, [trial for name in names for trial in some[name]])
        scored[cell] = {name: read_scored(name, some[name], items, share, metric, "report") for name in names}
    parameters = {size: _parameters(root, config, plan, size) for size in plan.sizes}
    points = _points(scored, parameters, share, config.seed, first[weights_key(mixtures[1].weights)])
    curves = curves_of(scored, parameters, share, first[weights_key(mixtures[1].weights)], config.seed)
    asked = {
        "sizes": list(plan.sizes),
        "tokens": list(plan.tokens),
        "mixtures": [one.name for one in mixtures],
        "seeds": plan.seeds,
    }
    n_seeds = min(len(one.seeds) for some in scored.values() for one in some.values())
    has_items = not config.objective.external
    domains = [domain.name for domain in weighed_domains(root, config)[0]]
    weights = {one.name: dict(zip(domains, one.weights, strict=True)) for one in mixtures}
    objective, said = Objective(metric, share), sentence(points, curves)
    return Scaling(VERSION, fingerprint, asked, has_items, objective, n_seeds, weights, points, curves, said)


def _parameters(root: Path, config: Config, plan: ScalingPlan, size: str) -> int | None:
    """Return the parameters of a size with the workspace's vocabulary; None where something else trains."""
    if config.objective.external:
        return None
    shape = targets_of(config, plan)[size, plan.tokens[0]].proxy
    return n_parameters(shape.width, shape.depth, read_json(root / "tokens" / "domains.json")["vocab_size"])


def _points(
    scored: Mapping[Cell, Mapping[str, Scored]],
    parameters: Mapping[str, int | None],
    share: Mapping[str, float],
    seed: int,
    natural: str,
) -> list[Point]:
    """Return a point for each size, token budget and mixture, with its gain over natural; Holm over all of them."""
    margins: dict[str, Margin] = {}
    scores: dict[tuple[Cell, str], Estimate] = {}
    for cell, some in scored.items():
        compared, names = Comparison(list(some.values()), share, seed), list(some)
        at = names.index(natural)
        margins |= {repr((cell, name)): compared.margin(at, i) for i, name in enumerate(names) if name != natural}
        scores |= {(cell, name): compared.score(i) for i, name in enumerate(names)}
    adjusted = correct(margins)
    return [
        Point(
            size=cell[0],
            parameters=parameters[cell[0]],
            tokens=cell[1],
            mixture=name,
            score=scores[cell, name].mean,
            interval=scores[cell, name].interval,
            by_seed=list(one.by_seed(share).values()),
            gain=difference(adjusted[key]) if (key := repr((cell, name))) in adjusted else None,
        )
        for cell, some in scored.items()
        for name, one in some.items()
    ]
