"""What the search learnt, for people: how the finalists contended, and how well scores can be predicted."""

from collections.abc import Mapping, Sequence
from typing import Any

from openclimb.console import counted
from openclimb.prior import prior_sentence
from openclimb.report import charts
from openclimb.report.facts import Facts
from openclimb.report.parts import chart, details, number, section, table, text

TELLS = 2.0  # a task tells mixtures apart well when its scores spread so many times as far as its noise


def contest_section(facts: Facts, figures: dict[str, charts.Figure]) -> str:
    """The rounds: how probably each mixture is the best after each round, and which were dropped."""
    if not facts.answer or not facts.answer["rounds"]:
        return ""
    rounds = facts.answer["rounds"]
    names = list(rounds[0]["probability_best"])
    believed = {row["name"]: row for row in facts.answer["contest"]}
    last = rounds[-1]["left"][0]
    rows = []
    for name in sorted(names, key=lambda name: (_rounds_of(name, rounds), believed[name]["expected"]), reverse=True):
        cells = [_cell(name, one) for one in rounds]
        mark = " ← the answer" if name == last else ""
        rows.append(
            f"<tr><td>{text(name)}{text(mark)}</td><td>{believed[name]['expected']:+.4f}</td>{''.join(cells)}</tr>"
        )
    heads = ["mixture", "expected", *(f"round {i}" for i in range(1, len(rounds) + 1))]
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in heads)
    body = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    sure = facts.config.get("pick", {}).get("sure", 0.9)
    left = rounds[-1]["probability_best"][last]
    why = (
        f"The rounds ended because {last} was sure enough ({left:.0%}; pick.sure is {sure:.0%})."
        if left >= sure
        else f"The rounds ended with {left:.0%} for {last}: the mixtures left are about as good as one another."
    )
    note = (
        "The best predicted mixtures, natural and uniform were trained in rounds, one fresh seed a round, the same for "
        f"all. A bar is the probability of being the best of them; after each round the worse half goes. {why}"
    )
    return section("The finalists", note, body)


def search_section(facts: Facts, figures: dict[str, charts.Figure]) -> str:
    """The trials in order, whether their scores can be predicted, in plain words and by task, and failed trials."""
    score = _objective(facts)
    if not score:
        return ""
    figures["search"] = charts.search_chart(facts, score)
    body = chart("search", "scores over trials")
    if facts.iterations:
        body += f"<h3>Can scores be predicted from the mixture?</h3>{_verdict(facts.iterations[-1])}"
        if facts.iterations[-1].get("forecast"):
            figures["predicted"] = charts.predicted_chart(facts.iterations)
            body += chart("predicted", "predicted against measured scores")
        body += _tasks(facts.iterations)
        body += _fitted(facts.iterations)
    if facts.prior:
        body += f"<p>{text(prior_sentence(facts.prior))}.</p>"
    failed = [trial for trial in facts.trials if trial.state == "failed"]
    if failed:
        listed = table(("trial", "message"), [(str(trial.number), trial.failure) for trial in failed])
        body += details(f"{counted(len(failed), 'trials')} failed", listed)
    note = "Every point is a proxy trained on one mixture."
    by_hand = sum(trial.role == "outside" for trial in facts.trials if trial.number in score)
    if by_hand:
        note += f" {counted(by_hand, 'trials')} told or imported by hand stand at their numbers."
    return section("The search", note, body)


def _verdict(found: Mapping[str, Any]) -> str:
    """Return the plain statement of the last iteration: the warning, or how well mixtures are ranked."""
    if found["warning"]:
        return f'<p class="warning"><strong>Take care:</strong> {text(found["warning"])}.</p>'
    rho = found["rank_correlation"]["objective"]
    covered = number(found["coverage_80"]["objective"], ".0%")
    return (
        f'<p class="good">Yes: mixtures that the predictor has not seen are ranked with a correlation of {rho:.2f}, '
        f"and its 80 % intervals hold {covered} of their scores.</p>"
    )


def _tasks(iterations: Sequence[Mapping[str, Any]]) -> str:
    """Return the table by task: rank correlation and coverage of each iteration, and the last noise and spread."""
    last = iterations[-1]
    tasks = ["objective", *(task for task in last["rank_correlation"] if task != "objective")]
    heads = ["task"]
    heads += [f"rank correlation, iteration {found['iteration'] + 1}" for found in iterations]
    heads += [f"80 % hold, iteration {found['iteration'] + 1}" for found in iterations]
    heads += ["noise", "spread", "spread ÷ noise", "predictor"]
    rows = []
    for task in tasks:
        noise, spread = last["noise"].get(task), last["spread"].get(task)
        times = spread / noise if noise and spread is not None else None
        weak = " (weak)" if times is not None and times < TELLS else ""
        rows.append(
            (
                task,
                *(number(found["rank_correlation"].get(task), ".2f") for found in iterations),
                *(number(found["coverage_80"].get(task), ".0%") for found in iterations),
                number(noise, ".4f"),
                number(spread, ".4f"),
                number(times, ".1f") + weak,
                last["predictor"].get(task) or "its tasks together",
            )
        )
    lead = (
        '<p class="small">Cross-validated: each trial is predicted by a fit that never saw it. A rank correlation of 1 '
        "puts all mixtures in their order, 0 is chance. 80 % intervals should hold about 80 %. Noise is how far "
        "one mixture's scores lie apart, spread how far the mixtures' do: a task whose spread is hardly more than its "
        "noise tells little.</p>"
    )
    return lead + table(tuple(heads), rows)


def _fitted(iterations: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            str(found["iteration"] + 1),
            str(len(found["trials"])),
            number(found["error_ratio"], ".2f"),
            number(found["best_predicted"], "+.4f"),
            number(found["best_measured"], "+.4f"),
            found["warning"] or "–",
        )
        for found in iterations
    ]
    heads = ("iteration", "fitted on trials", "error ÷ a constant's", "best predicted", "best measured", "warning")
    return details("Iteration by iteration", table(heads, rows))


def _rounds_of(name: str, rounds: Sequence[Mapping[str, Any]]) -> int:
    return sum(name in one["left"] for one in rounds)


def _cell(name: str, one: Mapping[str, Any]) -> str:
    """Return the table cell of a finalist in a round: a bar of its probability, and whether it goes."""
    if name not in one["probability_best"]:
        return "<td></td>"
    share = one["probability_best"][name]
    out = " out" if name in one["dropped"] else ""
    return f'<td><span class="bar{out}" style="--share:{share:.3f}"></span>{share:.0%}{out}</td>'


def signal_section(facts: Facts, figures: dict[str, charts.Figure]) -> str:
    """Return the section on how far each task tells mixtures apart."""
    found = facts.answer.get("signal") if facts.answer else None
    if not found:
        found = next((one["signal"] for one in reversed(facts.iterations) if one.get("signal")), [])
    if not found:
        return ""
    rows = [
        (
            row["task"],
            f"{row['weight']:.0%}",
            f"{row['spread']:.4f}",
            f"{row['noise']:.4f}",
            f"{number(row['ratio'], '.1f')} ({number(row['low'], '.1f')} to {number(row['high'], '.1f')})",
        )
        for row in found
    ]
    note = (
        "How far scores differ between mixtures, against how far they differ between seeds of one mixture; the ratio "
        "is of the spread without its share of noise, with its 95 % interval. A task below 1 says little about a "
        "mixture: more items, more tokens or another metric would help."
    )
    heads = ("task", "weight", "spread over mixtures", "noise over seeds", "signal to noise")
    return section("What the tasks can tell", note, table(heads, rows))


def _objective(facts: Facts) -> dict[int, float]:
    """Return trial → objective: the mean of its tasks under the settings' weights (1 where none is given)."""
    given = facts.config.get("tasks", {}).get("weights", {})
    given = facts.answer["objective"]["tasks"] if facts.answer else given  # as weighed by signal
    found = {}
    for trial in facts.trials:
        weights = {task: float(given.get(task, 1.0)) for task in trial.scores}
        total = sum(weights.values())
        if total > 0:
            found[trial.number] = sum(weights[task] * score for task, score in trial.scores.items()) / total
    return found
