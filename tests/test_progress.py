"""Progress: plain lines in a log, JSON lines for programs, a live view in a terminal."""

import io
import json

from openclimb.progress import JsonProgress, LiveProgress, PlainProgress, Progress, choose_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drive(progress: Progress) -> None:
    progress.start("label", 3, "units")
    progress.advance()
    progress.advance(2)
    progress.note("a note")
    progress.finish("3 units")
    progress.close()


def test_plain_lines_say_the_work_its_end_and_the_notes() -> None:
    stream = io.StringIO()
    drive(PlainProgress(stream, every=0.0))
    lines = [line[10:] for line in stream.getvalue().splitlines()]
    assert lines == [
        "label: 3 units",
        "label: 1 of 3 units, about 0 s left",
        "label: 3 of 3 units, about 0 s left",
        "a note",
        "label: done in 0 s · 3 units",
    ]


def test_json_lines_parse_and_count() -> None:
    stream = io.StringIO()
    drive(JsonProgress(stream))
    rows = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [row["event"] for row in rows] == ["start", "advance", "advance", "note", "finish"]
    assert (rows[2]["done"], rows[2]["total"]) == (3, 3)


def test_the_choice_follows_the_stream_and_the_flags() -> None:
    assert type(choose_progress(quiet=True, as_json=False)) is Progress
    assert type(choose_progress(quiet=False, as_json=True)) is JsonProgress
    assert type(choose_progress(quiet=False, as_json=False, stream=io.StringIO())) is PlainProgress
    live = choose_progress(quiet=False, as_json=False, stream=Terminal())
    assert type(live) is LiveProgress
    drive(live)
