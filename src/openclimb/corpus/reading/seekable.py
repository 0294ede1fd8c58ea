"""Seekable zstd: frames with a table of their sizes behind them, which can be read from anywhere.

Format: zstd's contrib/seekable_format. Other compressed files have no such table: the members of a gzip file and the
frames of a plain zstd file are found by reading all that stands before them, which is what cutting was to save.
"""

import io
import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import IO, Any

SKIPPABLE = 0x184D2A5E  # magic number of the frame that holds the table
SEEKABLE = 0x8F92EAB1  # the last four bytes of such a file
FOOTER = struct.Struct("<IBI")  # frames, descriptor, magic number
CHECKSUMS = 0x80  # bit of the descriptor: each entry has a checksum
MOST_FRAME = 1 << 26  # bytes of a frame, decompressed, that are held; files with larger ones are read from their start


@dataclass(frozen=True)
class SeekTable:
    """Where each frame begins, in the file and in the text; the last entry is the end of all."""

    packed: tuple[int, ...]
    plain: tuple[int, ...]


def seek_table(stream: IO[bytes], size: int) -> SeekTable | None:
    """Return the table at the end of a file of `size` bytes; None where there is none that can be used."""
    if size < FOOTER.size + 8:
        return None
    stream.seek(size - FOOTER.size)
    n, descriptor, magic = FOOTER.unpack(stream.read(FOOTER.size))
    width = 12 if descriptor & CHECKSUMS else 8
    length = n * width + FOOTER.size
    if magic != SEEKABLE or not n or length + 8 > size:
        return None
    stream.seek(size - length - 8)
    data = stream.read(length + 8)
    if struct.unpack_from("<II", data) != (SKIPPABLE, length):
        return None
    sizes = [struct.unpack_from("<II", data, 8 + i * width) for i in range(n)]
    packed, plain = (tuple(accumulate((pair[i] for pair in sizes), initial=0)) for i in range(2))
    whole = packed[-1] == size - length - 8
    return SeekTable(packed, plain) if whole and max(pair[1] for pair in sizes) <= MOST_FRAME else None


class SeekableFrames(io.RawIOBase):
    """The text of such a file, from any place on. What is no frame, or one of another size, raises EOFError."""

    def __init__(self, stream: IO[bytes], table: SeekTable) -> None:
        self.stream, self.table = stream, table
        self.at = 0
        self.frame = -1
        self.text: Sequence[int] | Any = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.table.plain[-1]}[whence]
        return self.at

    def readinto(self, buffer: Any) -> int:
        if self.at >= self.table.plain[-1]:
            return 0
        frame = bisect_right(self.table.plain, self.at) - 1
        if frame != self.frame:
            self.text, self.frame = memoryview(self._decompressed(frame)), frame
        begin = self.at - self.table.plain[frame]
        n = min(len(buffer), len(self.text) - begin)
        buffer[:n] = self.text[begin : begin + n]
        self.at += n
        return n

    def _decompressed(self, frame: int) -> bytes:
        import zstandard

        begin, end = self.table.packed[frame : frame + 2]
        size = self.table.plain[frame + 1] - self.table.plain[frame]
        self.stream.seek(begin)
        try:
            text = zstandard.ZstdDecompressor().decompress(self.stream.read(end - begin), max_output_size=size)
        except zstandard.ZstdError as error:
            raise EOFError(str(error)) from None
        if len(text) != size:
            raise EOFError(f"a frame has {len(text):,} bytes, and {size:,} by the table of frames")
        return text
