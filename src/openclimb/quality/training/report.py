"""What is told of students: report.json, and report.md for people."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.printable import one_line
from openclimb.quality.training.agreement import (
    Agreement,
    Rows,
    by_cluster,
    by_label,
    calibration,
    largest_misses,
)
from openclimb.quality.training.labels import Labels, read_lines
from openclimb.workspace.files import read_json, write_json, write_text

REPORT = "report.json"
SHOWN_CHARS = 160  # of a text among the largest misses
SHOWN_CLUSTERS = 5
Judged = Sequence[tuple[Sequence[Agreement], str]]  # of each scale: its students, the kind that is chosen


def write_report(
    out: Path, labels: Labels, rows: Sequence[Rows], judged: Judged, clusters: NDArray[np.int32] | None
) -> None:
    """Write report.json and report.md into a folder; `rows` and `judged` are those of each scale."""
    scales = [
        _scale(labels, one, students, chosen, clusters) for one, (students, chosen) in zip(rows, judged, strict=True)
    ]
    facts = {"labels": len(labels), "file": labels.path.name, "scales": scales}
    write_json(out / REPORT, facts)
    write_text(out / "report.md", report_text(facts))


def read_report(folder: Path) -> dict[str, Any]:
    """Return what `write_report` wrote as report.json."""
    found: dict[str, Any] = read_json(folder / REPORT)
    return found


def _scale(
    labels: Labels, rows: Rows, students: Sequence[Agreement], chosen: str, clusters: NDArray[np.int32] | None
) -> dict[str, Any]:
    """Return what is told of a scale: its students, and where the best of them agrees and where not."""
    shown = chosen or students[0].kind
    predicted = rows.predictions[shown]
    return {
        "scale": students[0].scale,
        "texts": len(rows.labels),
        "chosen": chosen,
        "students": [_student(one) for one in students],
        "shown": shown,
        "calibration": calibration(rows.labels, predicted),
        "by_label": by_label(rows.labels, predicted),
        "by_cluster": [] if clusters is None else by_cluster(rows.labels, predicted, clusters[rows.first]),
        "misses": _misses(labels, rows, predicted),
    }


def _student(one: Agreement) -> dict[str, Any]:
    found = asdict(one)
    for name in ("rank_correlation", "saved"):
        estimate = getattr(one, name)
        found[name] = round(estimate.value, 4)
        found[f"{name}_interval"] = [round(end, 4) for end in estimate.interval()]
    return found


def _misses(labels: Labels, rows: Rows, predicted: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Return the texts with the largest differences, those that the student rates too high first."""
    found = []
    for row in largest_misses(rows.labels, predicted):
        _, text, _ = next(read_lines(labels.path, int(labels.offsets[rows.first[row]])))
        about = {"label": round(float(rows.labels[row]), 3), "prediction": round(float(predicted[row]), 3)}
        found.append({**about, "text": text[:SHOWN_CHARS]})
    return found


def table_text(facts: Mapping[str, Any]) -> str:
    """Return a line for each student of each scale, as a table of a terminal."""
    rows = [("scale", "student", "rank correlation", "95 % interval", "error", "constant's", "")]
    for scale in facts["scales"]:
        for one in scale["students"]:
            low, high = one["rank_correlation_interval"]
            state = "refused" if one["refused"] else "chosen" if one["kind"] == scale["chosen"] else ""
            rows.append(
                (
                    one_line(scale["scale"]),
                    one["kind"],
                    f"{one['rank_correlation']:.3f}",
                    f"{low:.3f} to {high:.3f}",
                    f"{one['absolute_error']:.3f}",
                    f"{one['constant_absolute_error']:.3f}",
                    state,
                )
            )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def report_text(facts: Mapping[str, Any]) -> str:
    """Return report.md: the table of students, then a section a scale."""
    lines = [
        "# Students of labels",
        "",
        f"{facts['labels']:,} labels of {one_line(facts['file'])}. Every number is of texts that the student was not",
        "trained on; equal texts count once. Error: the mean absolute one, beside that of the mean label.",
        "",
        "```",
        table_text(facts),
        "```",
    ]
    for scale in facts["scales"]:
        lines += ["", f"## {one_line(scale['scale'])}", ""]
        refused = [f"- {one['kind']} is refused: {one['refused']}" for one in scale["students"] if one["refused"]]
        lines += [*refused, ""] if refused else []
        lines += [f"The {scale['shown']} by tenths of its prediction, and by label:", ""]
        lines += _table(("texts", "prediction", "label", "error"), scale["calibration"])
        lines += ["", *_table(("label", "texts", "prediction", "error"), scale["by_label"])]
        if scale["by_cluster"]:
            lines += ["", "Clusters with the largest differences:", ""]
            rows = scale["by_cluster"][:SHOWN_CLUSTERS]
            lines += _table(("cluster", "texts", "label", "prediction", "error"), rows)
        lines += ["", "The largest misses:", ""]
        lines += [
            f"- label {one['label']:g}, prediction {one['prediction']:.2f}: {one_line(one['text'])}"
            for one in scale["misses"]
        ]
    return "\n".join(lines) + "\n"


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return rows as a Markdown table; a column is what stands in the rows by its name, "texts" by "n"."""
    cells = [[f"{row['n' if name == 'texts' else name]:g}" for name in columns] for row in rows]
    return [" | ".join(each).join(("| ", " |")) for each in (columns, ["---"] * len(columns), *cells)]
