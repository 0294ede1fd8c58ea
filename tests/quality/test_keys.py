"""Files of keys: what is written is read again by ranges, and who repeats an earlier document."""

from pathlib import Path

import numpy as np
import pytest

from openclimb.quality import keys as files
from openclimb.quality.keys import EXACT, MOST_COMPARED, Form, n_documents, read_blocks, repeats, writing_keys


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 50])
def test_what_is_written_is_read_by_ranges(n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK", 16)
    form = Form(3, 8, "keys")
    rng = np.random.default_rng(n)
    keys = rng.integers(0, 1 << 64, (n, 3), dtype=np.uint64)
    signatures = rng.integers(0, 256, (n, 8), dtype=np.uint8)
    with writing_keys(tmp_path / "unit.bin") as add:
        for begin in range(0, n, 7):
            add(keys[begin : begin + 7], signatures[begin : begin + 7])
    assert n_documents(tmp_path / "unit.bin", form) == n
    blocks = read_blocks(tmp_path / "unit.bin", form)
    assert len(blocks) == -(-n // 16)
    found = []
    edges = [0, 1 << 62, 3 << 62, 1 << 64]
    for low, high in zip(edges, edges[1:], strict=False):
        for block in blocks:
            some, documents = block.between(low, high)
            assert all(low <= key < high for key in some.tolist())
            assert (np.diff(some.astype(object)) >= 0).all()
            found += zip((block.first + documents).tolist(), some.tolist(), strict=True)
    assert sorted(found) == sorted((i, key) for i in range(n) for key in keys[i].tolist())
    if n:
        assert (np.concatenate([block.signatures for block in blocks]) == signatures).all()


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def cut_short() -> None:
        with writing_keys(tmp_path / "unit.bin") as add:
            add(np.zeros((5, 1), dtype=np.uint64), None)
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        cut_short()
    assert list(tmp_path.iterdir()) == []
    assert EXACT.document == 10


def test_the_later_ones_repeat_the_earlier() -> None:
    keys = np.array([1, 4, 4, 4, 4, 7, 9, 9], dtype=np.uint64)
    assert repeats(keys, None).tolist() == [False, False, True, True, True, False, False, True]
    kinds = np.array([0, 1, 2, 1, 2, 1, 3, 4], dtype=np.uint8)  # equal kinds are alike
    found = repeats(keys, lambda place: np.repeat(kinds[place][:, None], files.SLOTS, axis=1))
    assert found.tolist() == [False, False, False, True, True, False, False, False]
    none = np.empty(0, dtype=np.uint64)
    assert repeats(none, None).tolist() == []


def test_many_that_share_a_key_and_are_not_alike_take_few_comparisons() -> None:
    n, asked = 4 * MOST_COMPARED, []

    def signatures(place: np.ndarray) -> np.ndarray:
        asked.append(len(place))
        return np.repeat(place[:, None].astype(np.uint8), files.SLOTS, axis=1)

    assert not repeats(np.zeros(n, dtype=np.uint64), signatures).any()
    assert sum(asked) <= MOST_COMPARED * (n + 1)
