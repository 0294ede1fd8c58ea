"""Secrets in text: user names, passwords and queries of URLs, tokens of known forms, arguments that look like one.

A query is taken out whole, as that of a signed URL is its key. An argument is judged by its name: `--token X`,
`--api-key=X`, `HF_TOKEN=X`, `Authorization: X`; `--token-budget 5M` and `--tokenizer X` are none.
"""

import os
import re
from collections.abc import Callable, Sequence

MASK = "***"
SHORT = 4  # characters: a shorter value is not looked for in other texts, where it may be a part of any word
URL = re.compile(r"(\w+://)([^/\s'\"]*@)?([^?\s'\"]*)(\?[^\s'\"]*)?")
FORMS = re.compile(  # of Hugging Face, OpenAI and others, GitHub, Amazon, Slack, Google, JSON web tokens
    r"\b(?:hf_\w{16,}|sk-[\w-]{16,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|AKIA[0-9A-Z]{16}|xox[abprs]-[\w-]{8,}"
    r"|AIza[\w-]{30,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+)([\w.~+/=-]{8,})")
ARGUMENT = re.compile(r"[-+~]{0,2}([A-Za-z][\w.-]*)=(.*)", re.DOTALL)  # a whole word
OPTION = re.compile(r"--?([A-Za-z][\w.-]*)")  # a whole word, whose value is the next one
VALUE = r"""("[^"]*"|'[^']*'|[^\s,;&'"]+)"""
NAMED = re.compile(r"""([A-Za-z][\w.-]*)["']?\s*[=:]\s*""" + VALUE)  # inside a word, which may be a script
SPACED = re.compile(r"(?<![\w-])--?([A-Za-z][\w.-]*)\s+(?!--)" + VALUE)
LOGINS = ("-u", "--user", "--proxy-user")  # curl's: name:password

WORDS = set(
    "password passwd passphrase passcode pwd secret secrets credential credentials apikey authorization".split()
)
WEAK = set("token key pass auth cookie signature sig jwt bearer".split())  # not with these:
HARMLESS = set(
    "budget count size length len max min num n id ids type file path dir name limit per sort primary order group "
    "public special pad eos bos mask unk field column".split()
)
PLAIN = re.compile(r"(?i)[+-]?[\d_.,]{1,9}[KMBT]?|true|false|yes|no|on|off|none|null|auto")  # a value of no secret


def without_secrets(text: str) -> str:
    """Return a text without what URLs and known forms show of secrets."""
    text = URL.sub(r"\1\3", text)
    return BEARER.sub(rf"\1\2{MASK}", FORMS.sub(MASK, text))


def masked_words(words: Sequence[str]) -> list[str]:
    """Return the words of a command with its secrets masked."""
    return _masked(words)[0]


def secret_values(words: Sequence[str]) -> list[str]:
    """Return the secrets in the words of a command, the longest first; too short ones are left out."""
    return sorted({value for value in _masked(words)[1] if len(value) >= SHORT}, key=lambda each: (-len(each), each))


def replaced(text: str, secrets: Sequence[str]) -> str:
    """Return a text in which these secrets are masked."""
    for value in secrets:
        text = text.replace(value, MASK)
    return text


def mask_error(error: BaseException | None) -> None:
    """Take the secrets of addresses and known forms out of an error in place, and out of those that it came from.

    Covers the texts it was made with, the file names of an OSError, and the traceback that a worker sent along.
    """
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.args = tuple(without_secrets(each) if isinstance(each, str) else each for each in one.args)
        for name in ("filename", "filename2", "strerror", "tb"):
            if isinstance(text := getattr(one, name, None), str):
                setattr(one, name, without_secrets(text))
        waiting += [one.__cause__, one.__context__]


class StreamMask:
    """Masks secrets in bytes that come piece by piece, wherever the pieces are cut.

    It holds back no more than what may be the beginning of a secret.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        """`secrets`: none empty, the longest first."""
        self._secrets = [os.fsencode(value) for value in secrets]
        self._pattern = re.compile(b"|".join(map(re.escape, self._secrets)) if self._secrets else b"(?!)")
        self._longest = max(map(len, self._secrets), default=0)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return what can be written by now."""
        data = self._held + data
        begin = self._begun(data, 0)
        done, written = 0, []
        for match in self._pattern.finditer(data):
            if match.start() >= begin:  # perhaps a longer secret
                break
            written += [data[done : match.start()], MASK.encode()]
            done = match.end()
        begin = begin if begin >= done else self._begun(data, done)
        self._held = data[begin:]
        return b"".join([*written, data[done:begin]])

    def rest(self) -> bytes:
        """Return what was held back, when nothing more comes."""
        held, self._held = self._held, b""
        return self._pattern.sub(MASK.encode(), held)

    def _begun(self, data: bytes, start: int) -> int:
        """Return where the longest end of the data from `start` on begins that begins a secret; its length for none."""
        for i in range(max(start, len(data) - self._longest + 1), len(data)):
            if any(len(data) - i < len(value) and value.startswith(data[i:]) for value in self._secrets):
                return i
        return len(data)


def is_secret(name: str, value: str) -> bool:
    """Return whether a value is a secret by the name that it is given under."""
    parts = [part.lower() for part in re.split(r"[-_.]+|(?<=[a-z0-9])(?=[A-Z])", name) if part]
    strong = any(part in WORDS or part.endswith(("password", "secret", "apikey")) for part in parts)
    if strong or ("key" in parts and {"api", "access", "private"} & set(parts)):
        return bool(value)
    weak = any(part in WEAK or part.endswith("token") for part in parts) and not HARMLESS & set(parts)
    return weak and bool(value) and not PLAIN.fullmatch(value)


def _masked(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words with their secrets masked, and the secrets."""
    found: list[str] = []
    masked, before = [], ""
    for word in words:
        option, argument = OPTION.fullmatch(before), ARGUMENT.fullmatch(word)
        login = before in LOGINS and ":" in word
        if login or (option and not word.startswith("--") and is_secret(option[1], word)):
            found.append(word)
            masked.append(MASK)
        elif argument and is_secret(argument[1], argument[2]):
            found.append(argument[2])
            masked.append(word[: argument.start(2)] + MASK)
        else:
            masked.append(_masked_text(word, found))
        before = word
    return masked, found


def _masked_text(text: str, found: list[str]) -> str:
    """Return a word, which may be a whole script, with its secrets masked; they are added to `found`."""

    def note(place: int) -> Callable[[re.Match[str]], str]:
        def mask(match: re.Match[str]) -> str:
            found.append(match[place])
            start, end = match.start(place) - match.start(), match.end(place) - match.start()
            return match[0][:start] + MASK + match[0][end:]

        return mask

    def url(match: re.Match[str]) -> str:
        login, query = match[2] or "", match[4] or ""
        found.extend(filter(None, (login[:-1], *login[:-1].split(":"), query[1:])))
        found.extend(part.partition("=")[2] for part in query[1:].split("&") if "=" in part)
        return match[1] + match[3]

    def named(match: re.Match[str]) -> str:
        value = match[2].strip("\"'")
        if value.lower() in ("bearer", "basic", MASK) or not is_secret(match[1], value):
            return match[0]
        found.append(value)
        return match[0][: match.start(2) - match.start()] + match[2].replace(value, MASK)

    text = URL.sub(url, text)
    text = BEARER.sub(note(3), FORMS.sub(note(0), text))
    return SPACED.sub(named, NAMED.sub(named, text))
