"""The files of annotations: what was answered (answers.jsonl, appended) and what is to be asked (documents.jsonl)."""

import errno
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.errors import WorkspaceError
from openclimb.quality.annotation.budget import Tokens
from openclimb.quality.annotation.replies import Answer

ANSWERS, DOCUMENTS = "answers.jsonl", "documents.jsonl"


class Answers:
    """The answers that a folder has, and the file to which more are appended. A torn last line is dropped."""

    def __init__(self, folder: Path, scales: Sequence[str]) -> None:
        self.path, self.scales = folder / ANSWERS, list(scales)
        self.failed, self.tokens, self.estimated = Counter[str](), Tokens(), 0
        self.places = np.empty((0, 2), np.int64)  # unit and position of each document that was answered
        self.scores = np.empty((0, len(self.scales)))  # NaN where there is no label
        self._cut_torn_line()
        self._read()
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115  one write a line

    def __enter__(self) -> "Answers":
        return self

    def __exit__(self, *_: object) -> None:
        os.fsync(self._file.fileno())
        self._file.close()

    def units(self) -> list[int]:
        """Return the units of the documents that were answered when the file was opened."""
        return [int(unit) for unit in np.unique(self.places[:, 0])]

    def add(self, place: tuple[int, int], answer: Answer) -> None:
        """Append an answer. A line is written whole, or not at all where the disk is full."""
        import orjson

        line: dict[str, Any] = {"unit": place[0], "position": place[1]}
        line |= {"scores": answer.scores} if answer.scores else {"failed": answer.failed, "detail": answer.detail}
        line["tokens"] = [answer.tokens.prompt, answer.tokens.answer]
        if answer.estimated:
            line["estimated"] = True
        data, size = orjson.dumps(line) + b"\n", self.path.stat().st_size
        if self._file.write(data) != len(data):
            self._file.truncate(size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._note(line)

    def _note(self, line: Mapping[str, Any]) -> None:
        self.tokens += Tokens(*line["tokens"])
        self.estimated += bool(line.get("estimated"))
        if "failed" in line:
            self.failed[line["failed"]] += 1

    def _read(self) -> None:
        import orjson

        places, scores = array("q"), array("d")
        if self.path.is_file():
            with open(self.path, "rb") as file:
                for number, text in enumerate(file, 1):
                    try:
                        line = orjson.loads(text)
                        found = line.get("scores") or {}
                        places.extend((line["unit"], line["position"]))
                        scores.extend(found.get(name, np.nan) for name in self.scales)
                        self._note(line)
                    except (ValueError, KeyError, TypeError) as error:
                        raise WorkspaceError(
                            f"{self.path}: line {number} cannot be read: {error!r}", "restore it, or remove that line"
                        ) from None
        if places:
            self.places = np.array(places, np.int64).reshape(-1, 2)
            self.scores = np.array(scores).reshape(-1, len(self.scales))

    def _cut_torn_line(self) -> None:
        """Take off what follows the last end of a line."""
        size = self.path.stat().st_size if self.path.is_file() else 0
        if not size:
            return
        with open(self.path, "r+b") as file:
            while size:
                begin = max(0, size - (1 << 16))
                file.seek(begin)
                at = file.read(size - begin).rfind(b"\n")
                if at >= 0:
                    size = begin + at + 1
                    break
                size = begin
            file.truncate(size)


def has_answers(folder: Path) -> bool:
    """Return whether a folder has any answer."""
    path = folder / ANSWERS
    return path.is_file() and path.stat().st_size > 0


class Documents:
    """The documents of `documents.jsonl`, by unit and position: where each text stands, and in which order to ask."""

    def __init__(self, folder: Path) -> None:
        import orjson

        self.path = folder / DOCUMENTS
        rows, offset = array("q"), 0
        with open(self.path, "rb") as file:
            for line in file:
                found = orjson.loads(line)
                rows.extend((found["unit"], found["position"], found["order"], offset))
                offset += len(line)
        table = np.array(rows, np.int64).reshape(-1, 4)
        self.places, self.order, self.offsets, self.n_bytes = table[:, :2], table[:, 2], table[:, 3], offset

    def __len__(self) -> int:
        return len(self.places)

    def place(self, row: int) -> tuple[int, int]:
        """Return unit and position of a document."""
        unit, position = self.places[row].tolist()
        return unit, position

    def answered(self, answers: Answers) -> NDArray[np.int64]:
        """Return for each document its line among the answers that were read, −1 for none."""
        found = np.full(len(self), -1, np.int64)
        for unit in answers.units():
            mine, theirs = np.flatnonzero(self.places[:, 0] == unit), np.flatnonzero(answers.places[:, 0] == unit)
            known, positions = answers.places[theirs, 1], self.places[mine, 1]
            by = np.argsort(known, kind="stable")
            at = np.minimum(np.searchsorted(known[by], positions), len(known) - 1)
            there = known[by][at] == positions
            found[mine[there]] = theirs[by[at[there]]]
        return found

    def texts(self, rows: Sequence[int]) -> Iterator[tuple[int, str]]:
        """Yield (row, text) for these rows, in their order."""
        import orjson

        with open(self.path, "rb") as file:
            for row in rows:
                file.seek(int(self.offsets[row]))
                yield row, orjson.loads(file.readline())["text"]
