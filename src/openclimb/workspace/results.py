"""What a workspace found, as typed values: mixture.json, diagnostics.json and validation.json, written and read here.

Scores are higher for better; intervals are [low, high].
"""

import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from openclimb.errors import WorkspaceError
from openclimb.workspace.files import read_json, write_json

MIXTURE = Path("mixture/mixture.json")
VALIDATION = Path("validation/validation.json")

Result = TypeVar("Result")


@dataclass(frozen=True)
class DomainRow:
    """One domain in a mixture, with what the expected score loses when `moved` of its weight goes to the others."""

    name: str
    tokens: int
    weight: float
    natural: float
    cap: float
    repetitions: float
    moved: float
    loss: float
    words: list[str]


@dataclass(frozen=True)
class Target:
    """What the mixture is for."""

    token_budget: int
    max_repetitions: float


@dataclass(frozen=True)
class Objective:
    """What was optimised: the measure, and the weight of each task."""

    metric: str
    tasks: dict[str, float]


@dataclass(frozen=True)
class Outlook:
    """What completed trials say of one mixture: how good, how surely, how sharply."""

    expected: float
    interval_80: list[float]  # of the mixture's own score, without the luck of a trial's seed
    distance: float  # total variation to the nearest mixture with scores
    nearest_trial: int | str
    effective_domains: float
    domains: list[DomainRow]
    transfer: str  # what informs the search from another workspace, "" for nothing


@dataclass(frozen=True)
class Best(Outlook):
    """The mixture of the best expected score by the trials so far (`climb best`)."""

    expected_natural: float
    best_measured: dict[str, Any] | None  # {"trial", "score"}
    tasks: dict[str, float]  # weights in the objective
    thresholds: list[dict[str, Any]]  # {"task", "least", "expected", "probability"}
    trials: int
    transferred: int
    target: Target
    has_items: bool
    tested: bool  # whether the workspace has an answer


@dataclass(frozen=True)
class MarginRow:
    """Ours minus another mixture."""

    mean: float
    interval: list[float]
    p: float
    p_holm: float
    comparison: str


@dataclass(frozen=True)
class SearchScore:
    """The mean of a mixture's trials on search items."""

    mean: float
    standard_error: float


@dataclass(frozen=True)
class ReportScore:
    """A mixture on report items; of each task its measures, {"mean", "interval"} each, and "n" items."""

    mean: float
    interval: list[float]
    tasks: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class ComparedRow:
    """A mixture of the confirmation."""

    name: str
    weights: dict[str, float]
    trials: list[int]
    seeds: list[int]
    search: SearchScore
    report: ReportScore


@dataclass(frozen=True)
class Round:
    """One seed of the finalists."""

    seed: int
    expected: dict[str, float]
    probability_best: dict[str, float]
    dropped: list[str]
    left: list[str]


@dataclass(frozen=True)
class CandidateRow:
    """A finalist, natural or uniform, as the rounds left it."""

    name: str
    weights: dict[str, float]
    expected: float
    probability_best: float


@dataclass(frozen=True)
class SignalRow:
    """How far a task's score tells mixtures apart (`stats.signal_to_noise`); None for what is not finite."""

    task: str
    weight: float
    spread: float
    noise: float
    n_mixtures: int
    freedom: int
    ratio: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Answer(Outlook):
    """The answer of a workspace: mixture/mixture.json."""

    probability_best: float
    target: Target
    choice: str
    sentence: str
    objective: Objective
    has_items: bool
    mixtures: list[ComparedRow]
    margins: dict[str, MarginRow]
    rounds: list[Round]
    candidates: list[CandidateRow]
    noise_floor: float
    trials: dict[str, int]  # by kind
    tokens_trained: int
    signal: list[SignalRow]

    @property
    def weights(self) -> dict[str, float]:
        """Domain → weight."""
        return {row.name: row.weight for row in self.domains}


@dataclass(frozen=True)
class Prediction:
    """A trial as predicted from the others, and as measured."""

    trial: int | str
    predicted: float
    deviation: float
    measured: float


@dataclass(frozen=True)
class Diagnostics:
    """What the predictors made of the observations after an iteration: iterations/NN/diagnostics.json.

    By task, with "objective": rank correlation and the share that 80 % intervals hold, both cross-validated; the noise
    of a trial and the spread over mixtures.
    """

    iteration: int
    trials: list[int | str]
    transferred: int
    predictor: dict[str, str]
    rank_correlation: dict[str, float | None]
    coverage_80: dict[str, float | None]
    noise_floor: float
    noise: dict[str, float]
    spread: dict[str, float]
    error_ratio: float
    best_predicted: float
    best_measured: float | None
    predictions: list[Prediction]
    warning: str
    seconds: float
    signal: list[SignalRow]


@dataclass(frozen=True)
class TargetModel:
    """What was trained: parameters (None where a command trains), tokens of a run."""

    parameters: int | None
    token_budget: int


@dataclass(frozen=True)
class ValidationRow:
    """A mixture as a target. `same_mixture`: it is the found one under another name."""

    name: str
    weights: dict[str, float]
    search_trials: int
    search_tokens: int
    score: float | None
    interval: list[float] | None
    by_seed: list[float]
    proxy_score: float | None
    probability_best: float
    margin: MarginRow | None
    same_mixture: bool


@dataclass(frozen=True)
class Validation:
    """The found mixture beside others as targets: validation/validation.json."""

    version: int
    mixture: str  # fingerprint of the answer
    target: TargetModel
    has_items: bool
    objective: Objective
    seeds: int
    rank_correlation: float | None
    rows: list[ValidationRow]
    sentence: str


def write_answer(folder: Path, answer: Answer) -> None:
    """Write mixture.json into a folder."""
    write_json(folder / MIXTURE.name, {"version": 2, **asdict(answer)})


def read_answer(root: Path) -> Answer:
    """Return the answer of a workspace."""
    return read_result(root / MIXTURE, Answer)


def write_diagnostics(folder: Path, diagnostics: Diagnostics) -> None:
    """Write diagnostics.json into the folder of an iteration."""
    write_json(folder / "diagnostics.json", asdict(diagnostics))


def read_diagnostics(root: Path) -> list[Diagnostics]:
    """Return what was learnt in each iteration of a workspace."""
    return [read_result(path, Diagnostics) for path in sorted(root.glob("iterations/*/diagnostics.json"))]


def write_validation(folder: Path, validation: Validation) -> None:
    """Write validation.json into a folder."""
    write_json(folder / VALIDATION.name, asdict(validation))


def read_validation(root: Path) -> Validation:
    """Return the validation of a workspace."""
    return read_result(root / VALIDATION, Validation)


def read_result(path: Path, kind: type[Result]) -> Result:
    """Return a file as a value of its dataclass. Raises WorkspaceError where a field is missing."""
    try:
        found: Result = _typed(kind, read_json(path))
    except KeyError as error:
        raise WorkspaceError(f"{path} has no {error}: it is of another version", "run again with --redo") from None
    return found


def _typed(kind: Any, value: Any) -> Any:
    """Return a value of JSON as what a type hint says: dataclasses in lists, in mappings by name, or None."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        kinds = [one for one in inner if is_dataclass(one)]
        return value if value is None or not kinds else _typed(kinds[0], value)
    if origin is list:
        return [_typed(inner[0], one) for one in value]
    if origin is dict:
        return {key: _typed(inner[1], one) for key, one in value.items()}
    if isinstance(value, Mapping) and isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{one.name: _typed(hints[one.name], value[one.name]) for one in fields(kind)})
    return value
