"""An OpenAI-compatible endpoint on this machine whose "model" rates by a rule, for tests and benches.

    with rule_endpoint(Rules(seconds=0.02)) as server:
        openclimb.open("my-run").annotate(100, endpoint=Endpoint(server.url, "rules"))

What it says follows from the document alone (`rule_scores`), so that labels can be checked. Faults are asked for by the
number of the request or by the text. It counts what it was sent.
"""

import asyncio
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import web

EXPLAINING = frozenset("because therefore example means why how if when then thus".split())
SELLING = frozenset("buy free offer click sale order discount price shop subscribe".split())
CULTURE = frozenset("god king poem music art history song church love soul".split())
DOCUMENT = re.compile(r"==== document (\w+)\n(.*)\n==== end \1", re.DOTALL)
NUMBERED = ("quality", "educational_value", "informational_value", "no_advertisement", "cultural_value")
BYTES_A_TOKEN = 4  # of this server's own count
KEPT = 100  # bodies of requests


def rule_scores(text: str) -> dict[str, int]:
    """Return the five scores of a text, each 0 to 5: share of letters, words that explain, length of words, words that
    sell (few: high), words of culture.
    """
    words = re.findall(r"[a-z]+", text.lower())
    share = sum(map(len, words)) / max(1, len(text))
    length = sum(map(len, words)) / max(1, len(words))
    found = (
        round(6 * share),
        len(EXPLAINING & set(words)),
        round(2 * (length - 3)),
        5 - sum(word in SELLING for word in words),
        sum(word in CULTURE for word in words),
    )
    return {name: max(0, min(5, value)) for name, value in zip(NUMBERED, found, strict=True)}


@dataclass(frozen=True)
class Rules:
    """How the server behaves.

    `fault`: (number of the request from 0, text) → a key of FAULTS or ERRORS, "drop", "not json", or "" for an answer.
    """

    seconds: float = 0.0  # that an answer takes
    fault: Callable[[int, str], str] = lambda _number, _text: ""
    formats: tuple[str, ...] = ("json_schema", "json_object", "text")  # of `response_format`; others are refused
    refused: dict[str, str] = field(default_factory=dict)  # key of a request → what a refusal of it says (400)
    retry_after: str = "1"  # what a 429 says, in seconds or as a date
    key: str = ""  # that is asked for
    scores: Callable[[str], Any] = rule_scores


@dataclass
class Seen:
    """What the server was sent, and what it charged for."""

    documents: Counter[str] = field(default_factory=Counter)  # text → how often an answer was given for it
    bodies: list[dict[str, Any]] = field(default_factory=list)  # of the first KEPT requests
    times: list[float] = field(default_factory=list)  # when each came, monotonic seconds
    keys: set[str] = field(default_factory=set)  # of the header Authorization
    requests: int = 0
    at_once: int = 0
    most_at_once: int = 0
    tokens: int = 0  # of prompts and answers that were given, whatever became of them


@dataclass
class Server:
    """A server that runs: its address, as `--endpoint` takes it, and what it saw."""

    url: str
    seen: Seen


def _answer(content: str, finish: str = "stop", **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}]}


def _without_first(scores: dict[str, Any]) -> dict[str, Any]:
    return dict(list(scores.items())[1:])


FAULTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {  # scores → the body of a reply 200
    "malformed": lambda scores: _answer(json.dumps(scores)[:-4]),
    "prose": lambda scores: _answer(f"Here you are: {json.dumps(scores)}"),
    "refusal": lambda _: _answer("", refusal="I cannot rate this."),
    "filter": lambda _: _answer("", "content_filter"),
    "length": lambda scores: _answer(json.dumps(scores)[:20], "length"),
    "range": lambda scores: _answer(json.dumps({**scores, "quality": 7})),
    "missing": lambda scores: _answer(json.dumps(_without_first(scores))),
    "words": lambda scores: _answer(json.dumps({**scores, "quality": "high"})),
    "twice": lambda scores: _answer(json.dumps(scores).replace("{", '{"quality": 0, ')),
    "half": lambda _: _answer("half a pair: \ud83d"),
    "empty": lambda _: _answer(""),
    "no usage": lambda scores: _answer(json.dumps(scores)),
    "thinking": lambda scores: _answer(f"<think>{{}} hm</think>\n```json\n{json.dumps(scores)}\n```"),
}
ERRORS: dict[str, tuple[int, str, dict[str, str]]] = {  # further faults, beside "drop" and "not json"
    "429": (429, "busy", {}),
    "500": (500, "a fault of the server", {}),
    "no money": (429, "You exceeded your current quota", {"code": "insufficient_quota"}),
    "long": (400, "This model's maximum context length is 128 tokens", {}),
    "flagged": (400, "The response was filtered by our content management policy", {"code": "content_filter"}),
}


@contextmanager
def rule_endpoint(rules: Rules | None = None) -> Iterator[Server]:
    """Run the server in a thread on a free port of 127.0.0.1 while the block runs."""
    seen, begun = Seen(), Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]]()

    async def reply(request: "web.Request") -> "web.StreamResponse":
        return await _reply(request, rules or Rules(), seen)

    async def serve() -> None:
        from aiohttp import web

        application = web.Application(client_max_size=1 << 24)
        application.router.add_post("/v1/chat/completions", reply)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
            stop = asyncio.Event()
            begun.set_result((f"http://127.0.0.1:{runner.addresses[0][1]}/v1", asyncio.get_running_loop(), stop))
            await stop.wait()
        finally:
            await runner.cleanup()

    def work() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if begun.done():
                raise
            begun.set_exception(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    url, loop, stop = begun.result()
    try:
        yield Server(url, seen)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


async def _reply(request: "web.Request", rules: Rules, seen: Seen) -> "web.StreamResponse":
    seen.at_once += 1
    seen.most_at_once = max(seen.most_at_once, seen.at_once)
    try:
        return await _one(request, rules, seen)
    finally:
        seen.at_once -= 1


async def _one(request: "web.Request", rules: Rules, seen: Seen) -> "web.StreamResponse":
    from aiohttp import web

    body, number = json.loads(await request.text()), seen.requests
    authorization = request.headers.get("Authorization", "")
    _see(seen, body, authorization)
    if rules.key and authorization != f"Bearer {rules.key}":
        return _error(401, f"Incorrect API key provided: {authorization}")
    if refusal := next((text for key, text in rules.refused.items() if key in body), ""):
        return _error(400, refusal)
    wanted = body.get("response_format", {}).get("type", "text")
    if wanted not in rules.formats:
        return _error(400, f"response_format of type {wanted} is not supported")
    found = DOCUMENT.search(body["messages"][-1]["content"])
    text = found[2] if found else ""
    if rules.seconds:
        await asyncio.sleep(rules.seconds)
    fault = rules.fault(number, text)
    if fault in ERRORS:
        status, message, more = ERRORS[fault]
        return _error(status, message, {"Retry-After": rules.retry_after} if fault == "429" else {}, **more)
    if fault == "drop" and request.transport:
        request.transport.abort()
    if fault in ("drop", "not json"):
        return web.Response(text="<html>oops</html>")
    scores = rules.scores(text)
    answer = FAULTS[fault](scores) if fault else _answer(json.dumps(scores))
    usage = _usage(body, answer)
    seen.documents[text] += 1
    seen.tokens += sum(usage.values())
    return web.json_response(answer if fault == "no usage" else {**answer, "usage": usage})


def _see(seen: Seen, body: dict[str, Any], authorization: str) -> None:
    seen.requests += 1
    seen.times.append(time.monotonic())
    seen.keys.add(authorization)
    if len(seen.bodies) < KEPT:
        seen.bodies.append(body)


def _usage(body: dict[str, Any], answer: dict[str, Any]) -> dict[str, int]:
    prompt = sum(len(message["content"].encode()) for message in body["messages"])
    content = len(answer["choices"][0]["message"]["content"].encode("utf-8", "replace"))
    return {"prompt_tokens": prompt // BYTES_A_TOKEN, "completion_tokens": content // BYTES_A_TOKEN}


def _error(status: int, message: str, headers: dict[str, str] | None = None, **more: str) -> "web.Response":
    from aiohttp import web

    return web.json_response({"error": {"message": message, **more}}, status=status, headers=headers)
