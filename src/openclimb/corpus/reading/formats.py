"""What a file's name says of its format, and the stream of its bytes: decompressed, in UTF-8, in bounded memory."""

import bz2
import codecs
import gzip
import io
import lzma
import posixpath
from collections.abc import Callable
from typing import IO, Any

from openclimb.corpus.reading.seekable import SeekableFrames, seek_table
from openclimb.masking import without_secrets

TEXTS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
    ".md": "text",
    ".warc": "warc",
    ".wet": "warc",
}
COMPRESSED = {".gz": "gz", ".zst": "zst", ".zstd": "zst", ".bz2": "bz2", ".xz": "xz", ".lz4": "lz4"}
SUFFIXES = {
    **{text + suffix: f"{kind}.{name}" for text, kind in TEXTS.items() for suffix, name in COMPRESSED.items()},
    **TEXTS,
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
SEEKABLE_ZST = "seekable-zst"  # of a unit: zstd that is read from anywhere; its places are those of the text
ENDINGS = f".parquet, .arrow, .feather, {', '.join(TEXTS)}; all but the first three also with {', '.join(COMPRESSED)}"
BLOCK = 1 << 20
FEED = 2048  # bytes of zstd decompressed at once: 4 bytes can stand for 128 kB, so these for 64 MB
LARGEST_WINDOW = 1 << 31  # bytes: what `zstd --long=31` makes; the library's own limit is that of --long=27
XZ_MEMORY = 1 << 29  # bytes that decompressing may take; xz -9 takes 65 MB
WIDE = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}  # before UTF-16, whose mark begins like it
WIDE |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def format_of(path: str) -> str:
    """Return the format that a file's name says, as "jsonl" or "jsonl.gz"; or ""."""
    lower = posixpath.basename(without_secrets(path)).lower()  # of a URL without its query
    return next((known for suffix, known in SUFFIXES.items() if lower.endswith(suffix)), "")


def stem_of(path: str) -> str:
    """Return a file's name in lower case without the suffix of its format."""
    lower = posixpath.basename(without_secrets(path)).lower()
    return next((lower.removesuffix(suffix) for suffix in SUFFIXES if lower.endswith(suffix)), lower)


def text_stream(stream: Any, compression: str) -> tuple[io.BufferedReader, bool]:
    """Return the decompressed bytes of a text file in UTF-8, and whether they had to be translated to it.

    UTF-16 and UTF-32 are known by their byte order mark; half a surrogate pair comes through as three bytes.
    """
    raw = decompressed(stream, compression)
    head = raw.peek(4)[:4]
    for mark, encoding in WIDE.items():
        if head.startswith(mark):
            return io.BufferedReader(_Translated(raw, encoding), BLOCK), True
    return raw, False


def decompressed(stream: Any, compression: str) -> io.BufferedReader:
    """Return a buffered stream of what is in a compressed one ("": as it is). A file that ends early raises."""
    if compression == "gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=stream), BLOCK)
    if compression == "bz2":
        return io.BufferedReader(_Frames(stream, bz2.BZ2Decompressor, BLOCK), BLOCK)
    if compression == "xz":
        return io.BufferedReader(_Frames(stream, lambda: lzma.LZMADecompressor(memlimit=XZ_MEMORY), BLOCK), BLOCK)
    if compression == "zst":
        import zstandard

        context = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
        return io.BufferedReader(_Frames(stream, context.decompressobj, FEED), BLOCK)
    if compression == SEEKABLE_ZST:
        table = seek_table(stream, stream.seek(0, io.SEEK_END))
        if table is None:
            raise EOFError("its table of frames is gone")
        return io.BufferedReader(SeekableFrames(stream, table), BLOCK)
    if compression == "lz4":
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(stream, "r"), "lz4"), BLOCK)
    if isinstance(stream, io.BufferedReader):
        return stream
    return io.BufferedReader(stream, BLOCK)  # a remote file's own readline knows no limit


class _Frames(io.RawIOBase):
    """Compressed frames one after the other; zstd's own reader ends quietly when a file is cut short."""

    def __init__(self, stream: IO[bytes], make: Callable[[], Any], feed: int) -> None:
        self.stream, self.make, self.feed = stream, make, feed
        self.frame: Any = None
        self.began = False
        self.ready = memoryview(b"")
        self.rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.ready:
            data = b""
            if self.frame is None or getattr(self.frame, "needs_input", True):
                data = self.rest or self.stream.read(self.feed)
                self.rest = b""
                if not data:
                    if self.frame is not None:
                        raise EOFError("the last frame has no end")
                    return 0
                if self.frame is None:
                    data = data.lstrip(b"\0") if self.began else data  # xz pads between frames
                    if not data:
                        continue
                    self.frame, self.began = self.make(), True
            self.ready = memoryview(self._decompress(data))
            if self.frame.eof:
                self.rest, self.frame = self.frame.unused_data, None
        n = min(len(buffer), len(self.ready))
        buffer[:n] = self.ready[:n]
        self.ready = self.ready[n:]
        return n

    def _decompress(self, data: bytes) -> bytes:
        limited = isinstance(self.frame, (bz2.BZ2Decompressor, lzma.LZMADecompressor))
        try:
            return bytes(self.frame.decompress(data, BLOCK) if limited else self.frame.decompress(data))
        except Exception as error:  # zstandard.ZstdError, LZMAError, OSError: all say that the data are no frame
            raise EOFError(str(error)) from None


class _Translated(io.RawIOBase):
    """Text of another encoding as UTF-8."""

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self.stream = stream
        self.decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        self.ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.ready:
            data = self.stream.read(BLOCK)
            try:
                text = self.decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                raise EOFError(f"{error.encoding}: {error.reason}") from None
            if not data and not text:
                return 0
            self.ready = memoryview(text.encode("utf-8", "surrogatepass"))
        n = min(len(buffer), len(self.ready))
        buffer[:n] = self.ready[:n]
        self.ready = self.ready[n:]
        return n
