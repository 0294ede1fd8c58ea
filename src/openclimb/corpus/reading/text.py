"""Text as people have it: JSON with a byte order mark, bare NaN or half a surrogate pair."""

import json
from typing import Any


def parse_json(line: bytes) -> Any:
    """Return the value of a JSON text, also one with a byte order mark, NaN, Infinity or half a surrogate pair.

    Raises ValueError (orjson's message) for what is no JSON.
    """
    import orjson

    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            return json.loads(line)  # slower, and takes what other programs write
        except (ValueError, RecursionError):
            raise error from None


def whole(text: str) -> str:
    """Return a text with U+FFFD for each half of a surrogate pair, which UTF-8 cannot hold; two halves are joined."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
