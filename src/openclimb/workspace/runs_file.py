"""Runs that were finished elsewhere: a table of mixtures and a table of scores that share a column of names.

Reads `ratios.csv` (name, then one weight a domain) and `metrics.csv` (name, then one score a task), in any dialect of
`sheet.py`. What is left out of either is said in sentences.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from openclimb.errors import InputError, nearest
from openclimb.printable import one_line
from openclimb.progress import counted
from openclimb.workspace.sheet import Sheet, is_numberlike, read_numbers, read_sheet
from openclimb.workspace.tables import unguarded
from openclimb.workspace.trials import Trial

KEYS = ("run", "run_id", "id", "trial", "name", "index", "")  # which shared column names a run; "" as pandas writes it
BOOKKEEPING = {*KEYS, "seed", "step", "epoch", "group", "state", "status", "notes", "tags", "user", "created", "sweep"}
SUM_TOLERANCE = 1e-2  # weights that people rounded are renormalised; more than this is a mistake
NOISE = 1e-9  # below 0, left by a subtraction
ROUNDING = 1e-6  # a sum this near to 1 is 1
SHOWN = 5  # names listed in a message
LOSSES = ("loss", "bpb", "ppl", "perplexity", "bits_per_byte", "nll")  # in names of metrics that are lower is better
FIX = "give the two tables: climb import DIR ratios.csv metrics.csv"


@dataclass(frozen=True)
class Run:
    """One finished run."""

    name: str
    weights: tuple[float, ...]  # in the order of the domains, sum 1
    scores: dict[str, float]  # by task, higher is better; without those that were not measured


@dataclass(frozen=True)
class RunTables:
    """The runs of two tables, and sentences on what was taken, changed and left out."""

    runs: list[Run]
    tasks: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Imported:
    """Trials made of finished runs."""

    trials: list[Trial]
    new: int  # those that were not there before
    notes: tuple[str, ...]  # sentences on what was taken, changed and left out


@dataclass(frozen=True)
class Directions:
    """Which metrics are lower is better, and change sign: all, or those that match a glob of `lower`."""

    losses: bool = False
    lower: Sequence[str] = ()

    def of(self, metrics: Sequence[str]) -> dict[str, float]:
        """Return 1 or −1 for each metric. Raises InputError for a glob that matches none."""
        for glob in self.lower:
            if not any(_matches(name, glob) for name in metrics):
                raise InputError(
                    f"--lower '{glob}' matches no metric{nearest(glob, metrics)}", f"metrics are: {listed(metrics)}"
                )
        return {n: -1.0 if self.losses or any(_matches(n, glob) for glob in self.lower) else 1.0 for n in metrics}


def _matches(name: str, glob: str) -> bool:
    return name == glob or fnmatchcase(name, glob)  # a name may have brackets


def read_runs(
    ratios: Path, metrics: Path, domains: Sequence[str], directions: Directions, known: Collection[str] = ()
) -> RunTables:
    """Return the runs that are in both tables, in the order of `ratios`. `known` are tasks that trials have.

    Weights that sum to 1 within SUM_TOLERANCE are renormalised; percentages are divided by 100. An empty metric is a
    score that was not measured. Raises InputError for domains without a column, columns of weights without a domain,
    weights that are negative or do not sum to 1, numbers that cannot be, names that repeat, and no run in both tables.
    """
    first, second = _known_by(read_sheet(ratios, FIX), domains), _known_by(read_sheet(metrics, FIX), known)
    key = shared_column(first, second, domains)
    names, others = _names(first, key[0]), _names(second, key[1])
    left_out = [column for column in first.head if column != key[0] and column not in domains]
    for missing in [name for name in domains if name not in first.head]:
        raise InputError(
            f"{ratios} has no column for the domain '{missing}'{nearest(missing, first.head)}",
            f"it must have one column a domain: {', '.join(domains)}",
        )
    for unknown in [name for name in left_out if _is_weight(first, name)]:
        raise InputError(
            f"{ratios} has a column '{unknown}', which is no domain{nearest(unknown, domains)}",
            f"domains are: {', '.join(domains)}",
        )
    tasks = [column for column in second.head if column != key[1] and _is_metric(second, column, known)]
    if not tasks:
        raise InputError(f"{metrics} has no column of scores beside '{key[1]}'", "give one column a task")
    mixtures, said = _mixtures(first, domains)
    signs = directions.of(tasks)
    columns = read_numbers(second, tasks)
    runs, unscored = [], []
    row_of = {name: row for row, name in enumerate(others)}
    for name, weights in zip(names, mixtures, strict=True):
        cells = {task: columns[task][row_of[name]] for task in tasks} if name in row_of else {}
        scores = {task: signs[task] * cell + 0.0 for task, cell in cells.items() if cell is not None}
        if scores:
            runs.append(Run(name, weights, scores))
        elif cells:
            unscored.append(name)
    if not runs:
        raise InputError(f"no run in {metrics} has a score", "fill in at least one cell")
    notes = [
        f"runs are named by '{key[0]}'",
        *_left_out(first, left_out),
        *_left_out(second, [column for column in second.head if column != key[1] and column not in tasks]),
        *_lone(names, others, ratios, metrics),
        *_some("runs without any score, left out", unscored),
        *said,
        *_no_evidence(runs, domains),
        *_directions(signs),
        *_empty(runs, tasks),
    ]
    return RunTables(runs, tuple(tasks), tuple(notes))


def _known_by(sheet: Sheet, known: Collection[str]) -> Sheet:
    """Return a table whose columns have the known names, where our own tables have an apostrophe before them."""
    found = [unguarded(name) if name not in known and unguarded(name) in known else name for name in sheet.head]
    return replace(
        sheet, head=tuple(new if found.count(new) == 1 else old for old, new in zip(sheet.head, found, strict=True))
    )


def plain(column: str) -> str:
    """Return a column's name as bookkeeping columns are told by it: "Unnamed: 0", as pandas reads it, has none."""
    name = column.strip().lower().replace(" ", "_").replace("-", "_")
    return "" if name.startswith("unnamed:") else name


def shared_column(ratios: Sheet, metrics: Sheet, domains: Sequence[str]) -> tuple[str, str]:
    """Return the column that names the runs in the one and the other table: the first of KEYS that can.

    It is in both, has another name in every row, and a run in common. Domains may have metrics of the same name.
    """
    there = {plain(column): column for column in metrics.head}
    shared = [(c, there[plain(c)]) for c in ratios.head if plain(c) in there and c not in domains]
    pairs = [pair for key in KEYS for pair in shared if plain(pair[0]) == key]
    if not pairs and len(shared) == 1 and shared[0][0] == ratios.head[0]:
        pairs = shared
    if not pairs:
        raise InputError(
            f"{ratios.path} and {metrics.path} share no column that names the runs",
            f"give both a first column 'run'; {ratios.path.name} has {', '.join(ratios.head[:SHOWN])}, … and "
            f"{metrics.path.name} has {', '.join(metrics.head[:SHOWN])}, …",
        )
    faults = []
    for pair in pairs:
        fault = _fault_of(ratios, pair[0]) or _fault_of(metrics, pair[1])
        if fault is None and set(_names(ratios, pair[0])) & set(_names(metrics, pair[1])):
            return pair
        faults.append(
            fault
            or InputError(
                f"no run is in both tables: '{pair[0]}' of {ratios.path} has {listed(_names(ratios, pair[0]))} and not "
                f"one of {metrics.path}, which has {listed(_names(metrics, pair[1]))}",
                "both tables must have the same names of runs",
            )
        )
    raise faults[0]


def _names(sheet: Sheet, key: str) -> list[str]:
    """Return the names of the runs; whole numbers without the ".0" that a table with gaps gets."""
    return [name.removesuffix(".0") if name[:-2].isdigit() else name for name in sheet.column(key)]


def _fault_of(sheet: Sheet, key: str) -> InputError | None:
    """Return why a column cannot name the runs."""
    seen: set[str] = set()
    for row, name in enumerate(_names(sheet, key)):
        if not name:
            return InputError(f"{sheet.place(row, key)} is empty", "every run needs a name")
        if name in seen:
            return InputError(
                f"{sheet.path} line {sheet.lines[row]} has a second row for run '{name}'",
                "a run has one name for itself",
            )
        seen.add(name)
    return None


def _is_weight(sheet: Sheet, column: str) -> bool:
    """Return whether a column that is no domain may hold weights: numbers from 0 to 1 that are no known bookkeeping."""
    cells = [cell for cell in sheet.column(column) if cell]
    if plain(column) in BOOKKEEPING or not cells or not all(map(is_numberlike, cells)):
        return False
    try:
        return all(value is None or 0 <= value <= 1 for value in read_numbers(sheet, [column])[column])
    except InputError:
        return False


def _is_metric(sheet: Sheet, column: str, known: Collection[str]) -> bool:
    """Return whether a column holds scores: it is a known task, or has a number and is no known bookkeeping."""
    return column in known or (plain(column) not in BOOKKEEPING and any(map(is_numberlike, sheet.column(column))))


def _mixtures(sheet: Sheet, domains: Sequence[str]) -> tuple[list[tuple[float, ...]], list[str]]:
    """Return the weights of each row, sum 1, and what was changed about them."""
    columns = read_numbers(sheet, domains)
    rows = [[columns[domain][row] for domain in domains] for row in range(len(sheet.rows))]
    n_empty = sum(cell is None for row in rows for cell in row)
    values = [[0.0 if cell is None or -NOISE < cell < 0 else cell for cell in row] for row in rows]
    notes = [f"{counted(n_empty, 'empty weights')} taken as 0"] if n_empty else []
    if all(abs(sum(row) - 100) <= 100 * SUM_TOLERANCE for row in values):
        values = [[weight / 100 for weight in row] for row in values]
        notes.append("weights are percentages: divided by 100")
    off = []
    for row, weights in enumerate(values):
        total = sum(weights)
        where = f"{sheet.path} line {sheet.lines[row]}"
        for domain, weight in zip(domains, weights, strict=True):
            if weight < 0:
                raise InputError(f"{where}: the weights are negative: {domain} {weight:g}", "they must be 0 or more")
        if abs(total - 1.0) > SUM_TOLERANCE + ROUNDING:
            empty = counted(sum(cell is None for cell in rows[row]), "empty cells")
            raise InputError(
                f"{where}: the weights sum to {total:.6g}, not 1{f' ({empty})' if None in rows[row] else ''}",
                f"they must sum to 1 within {SUM_TOLERANCE:g}",
            )
        off.append(abs(total - 1.0))
    changed = [one for one in off if one > ROUNDING]
    if changed:
        notes.append(
            f"{len(changed)} of {counted(len(off), 'rows')} renormalised: their weights summed to 1 but for "
            f"{max(changed):.2g} at most"
        )
    return [tuple(weight / sum(weights) for weight in weights) for weights in values], notes


def _left_out(sheet: Sheet, columns: Sequence[str]) -> list[str]:
    dialect = [f"{sheet.path.name} is read as: {sheet.dialect}"] if sheet.dialect else []
    return dialect + _some(f"columns of {sheet.path.name} left out", [name or "(without a name)" for name in columns])


def _lone(names: Sequence[str], others: Sequence[str], ratios: Path, metrics: Path) -> list[str]:
    first, second = set(names), set(others)
    return [
        *_some(f"runs in {ratios.name} and not in {metrics.name}, left out", [n for n in names if n not in second]),
        *_some(f"runs in {metrics.name} and not in {ratios.name}, left out", [n for n in others if n not in first]),
    ]


def _no_evidence(runs: Sequence[Run], domains: Sequence[str]) -> list[str]:
    zero = [
        name
        for name, column in zip(domains, zip(*(r.weights for r in runs), strict=True), strict=True)
        if not any(column)
    ]
    return _some("no evidence, since the weight is 0 in every run, for", zero)


def _directions(signs: Mapping[str, float]) -> list[str]:
    lower = [name for name, sign in signs.items() if sign < 0]
    higher = [name for name in signs if name not in lower]
    doubtful = [name for name in higher if any(word in name.lower() for word in LOSSES)]
    return [
        *_some("lower is better, sign changed", lower),
        *_some("higher is better", higher),
        *_some("named as losses and taken as higher is better (--lower changes that)", doubtful),
    ]


def _empty(runs: Sequence[Run], tasks: Sequence[str]) -> list[str]:
    missing = {task: sum(task not in run.scores for run in runs) for task in tasks}
    n = sum(missing.values())
    short = [f"{task} ({count})" for task, count in missing.items() if count]
    return _some(f"{counted(n, 'scores')} missing, by task", short) if n else []


def _some(what: str, names: Sequence[str]) -> list[str]:
    """Return "what: names" as a sentence, or none where there is none."""
    return [f"{what}: {listed(names)}"] if names else []


def listed(names: Iterable[str]) -> str:
    """Return names as a list of which the first few are shown."""
    names = list(map(one_line, names))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
