"""A client of OpenAI-compatible endpoints (vLLM, NIM, llama.cpp's server, hosted ones) that rates documents.

A server that refuses `response_format` json_schema is asked for json_object, then for plain text; the answer is read as
strictly each time. Busy servers (429) and faults (5xx, dropped connections) are tried again, refused and unusable
answers are counted, and what makes every further request useless ends the work. The key comes from the environment.
"""

import asyncio
import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from openclimb.engines.interruption import Interrupted
from openclimb.errors import ConfigError, EndpointError, MissingDependency
from openclimb.masking import replaced, without_secrets
from openclimb.progress import counted
from openclimb.quality.annotation.budget import TEMPLATE_TOKENS, Budget, Limits, Tokens
from openclimb.quality.annotation.replies import Answer, Reply, answer_of, is_filtered, is_too_long, retry_after, said
from openclimb.quality.annotation.rubric import Rubric, enclosed

if TYPE_CHECKING:
    import aiohttp

KEYS = ("OPENCLIMB_API_KEY", "OPENAI_API_KEY")  # the first that is set counts, also if it is empty: then none is sent
FORMATS = ("json_schema", "json_object", "text")
FORMAT_WORDS = ("response_format", "json_schema", "json_object", "guided", "grammar", "structured")
SECONDS = 600.0  # that a request may take: a full queue of a small server
GRACE = 20.0  # seconds that requests in flight have when the work is to stop: their answers are paid
TRIES, FIRST_TRIES = 8, 3  # of a request; and where nobody listens and nothing was ever answered
FIRST_WAIT, MOST_WAIT = 1.0, 60.0  # seconds between two tries, doubled each time: two minutes in all
LONGEST_WAIT = 600.0  # seconds that a server may ask for; beyond that the work ends, and goes on later
IN_A_ROW = 50  # unusable answers that end the work: each of them is paid
MOST_BYTES = 4_000_000  # of a reply

Took = Callable[[int, Answer], None]  # given a document's number and its answer, in a thread of the client


@dataclass(frozen=True)
class Endpoint:
    """Where a language model answers, and how many requests at once."""

    url: str
    model: str
    concurrency: int = 16

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
        except ValueError:
            parts = urlsplit("")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ConfigError(
                f"--endpoint {self.shown} has a user, a password or a query in it",
                f"give the address alone; a key goes into the environment: export {KEYS[0]}=…",
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"--endpoint {self.shown} is no address", "write it as http://localhost:8000/v1")

    @property
    def shown(self) -> str:
        """The address as messages and records have it."""
        return without_secrets(self.url)

    @property
    def address(self) -> str:
        """Where requests go."""
        base = self.url.rstrip("/")
        return base if base.endswith("/chat/completions") else f"{base}/chat/completions"


@dataclass(frozen=True)
class Form:
    """What a server takes."""

    format: str = FORMATS[0]
    limit: str = "max_tokens"
    temperature: bool = True


class Stopped(Exception):
    """Ends a request that waits for another try, when the work is to stop."""


class Client:
    """Rates documents at an endpoint, within a budget."""

    def __init__(self, endpoint: Endpoint, rubric: Rubric, limits: Limits, note: Callable[[str], None]) -> None:
        """Raises MissingDependency without aiohttp, ConfigError for a key that cannot be sent."""
        try:
            import aiohttp  # noqa: F401
        except ImportError:
            raise MissingDependency("aiohttp", "pip install 'openclimb[annotate]'") from None
        self.endpoint, self.rubric, self.note = endpoint, rubric, note
        self.budget = Budget(limits, Tokens())
        self.form = Form()
        self.spent_up = False  # whether the budget ended the work
        self._system = rubric.system()
        self._system_bytes = len(self._system.encode())
        self._key = key()
        self._answered = self._unusable = 0  # documents that were answered; in a row without a label
        self._in_flight, self._paused = 0, 0.0  # requests; until when nobody sends, in the loop's time
        self._stop_asked = self._abort = False  # by the thread that waits
        self._error: BaseException | None = None
        self._ended = threading.Event()

    def label(self, documents: Iterator[tuple[int, str]], spent: Tokens, took: Took) -> None:
        """Rate documents (number, text) until there are no more, the budget is spent, or something ends the work.

        `spent` count in the budget already. Requests run in a thread of their own, so that a signal never cuts an
        answer in two: those in flight are waited for, and the signal is raised again. Raises EndpointError where
        further requests are of no use.
        """
        self.budget.spent = spent
        thread = threading.Thread(target=self._work, args=(documents, took), daemon=True)
        thread.start()
        try:
            self._ended.wait()  # not `join`: before Python 3.13 a signal in it makes the thread count as ended
        except (KeyboardInterrupt, Interrupted):
            self._stop_asked = True
            self.note(f"stopping: up to {GRACE:.0f} s for answers on their way, which are paid; Ctrl-C: at once")
            try:
                self._ended.wait()
            except (KeyboardInterrupt, Interrupted):
                self._abort = True
                self._ended.wait(GRACE)
            raise
        if self._error:
            raise self._error

    def _work(self, documents: Iterator[tuple[int, str]], took: Took) -> None:
        try:
            asyncio.run(self._all(documents, took))
        except BaseException as error:
            self._error = self._error or error
        finally:
            self._ended.set()

    async def _all(self, documents: Iterator[tuple[int, str]], took: Took) -> None:
        import aiohttp

        self._stopping, self._freed = asyncio.Event(), asyncio.Condition()
        loop, deadline = asyncio.get_running_loop(), 0.0
        connector = aiohttp.TCPConnector(limit=self.endpoint.concurrency)
        timeout = aiohttp.ClientTimeout(total=SECONDS)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers=headers, trust_env=True
        ) as session:
            waiting = {
                asyncio.create_task(self._worker(session, documents, took)) for _ in range(self.endpoint.concurrency)
            }
            while waiting:
                _, waiting = await asyncio.wait(waiting, timeout=0.2)
                if self._stop_asked:
                    self._stopping.set()
                if self._stopping.is_set():
                    deadline = deadline or loop.time() + GRACE
                    if self._abort or loop.time() > deadline:
                        for task in waiting:
                            task.cancel()

    async def _worker(self, session: "aiohttp.ClientSession", documents: Iterator[tuple[int, str]], took: Took) -> None:
        """Take one document after the other. What it raises ends the work of all."""
        try:
            while not self._stopping.is_set() and (document := next(documents, None)):
                number, text = document
                prompt = enclosed(text)
                n_bytes = self._system_bytes + len(prompt.encode())
                most = Tokens(n_bytes + TEMPLATE_TOKENS, self.rubric.answer_tokens)
                if not await self._reserve(most):
                    return
                answer = Answer(None, Tokens())
                try:
                    answer = await self._ask(session, prompt, n_bytes)
                    took(number, answer)
                    self._count(answer)
                finally:
                    await self._free(most, answer.tokens)
        except Stopped:
            pass
        except Exception as error:
            self._error = self._error or error
            self._stopping.set()

    async def _reserve(self, most: Tokens) -> bool:
        """Set aside what a request may cost. False: it does not fit, and no request in flight can change that."""
        async with self._freed:
            while not self.budget.fits(most):
                if not self._in_flight or self._stopping.is_set():
                    self.spent_up = self.spent_up or not self._stopping.is_set()
                    return False
                await self._freed.wait()
            self.budget.reserved += most
            self._in_flight += 1
            return True

    async def _free(self, most: Tokens, spent: Tokens) -> None:
        async with self._freed:
            self.budget.reserved -= most
            self.budget.spent += spent
            self._in_flight -= 1
            self._freed.notify_all()

    def _count(self, answer: Answer) -> None:
        """Note an answer. Raises EndpointError when so many in a row were of no use that the next ones will not be."""
        self._unusable = 0 if answer.scores else self._unusable + 1
        if self._unusable >= IN_A_ROW:
            raise EndpointError(
                f"{self.endpoint.model} gave {IN_A_ROW} answers in a row that cannot be used; the last: "
                f"{answer.failed}{f' ({answer.detail})' if answer.detail else ''}",
                "use a model that follows instructions, or edit rubric.toml (answer_tokens for a model that thinks)",
            )

    async def _ask(self, session: "aiohttp.ClientSession", prompt: str, n_bytes: int) -> Answer:
        """Return the answer for one document, after as many tries as it takes."""
        import orjson

        tried, before = 0, 0
        while True:
            await self._pause(self._paused - asyncio.get_running_loop().time())
            form = self.form
            reply = await self._send(session, orjson.dumps(self._body(form, prompt)))
            if reply.status == 200 and reply.choice is not None:
                self._answered += 1
                return answer_of(reply, list(self.rubric.scales), n_bytes, self._masked)
            if reply.refused:
                if answer := self._refused(reply, form):
                    return answer
                continue  # in another form
            tried += 1
            least = FIRST_TRIES if reply.status == 0 and not self._answered else TRIES
            if tried >= least:
                if self._answered == before:  # nothing else came through either since the try before
                    raise EndpointError(
                        f"{self.endpoint.shown}: {self._masked(said(reply))}, {counted(tried, 'times')} in a row",
                        "see that the server runs and the address is right, then run the same command to go on",
                    )
                if reply.status != 429:
                    return Answer(None, Tokens(), "server error", self._masked(said(reply)))
                tried = 1
            before = self._answered
            await self._wait(reply, tried)

    async def _send(self, session: "aiohttp.ClientSession", body: bytes) -> Reply:
        """Return what a server replies; status 0 where no whole reply came."""
        import aiohttp

        try:
            async with session.post(self.endpoint.address, data=body, allow_redirects=False) as response:
                data = b""
                async for piece in response.content.iter_any():
                    data += piece
                    if len(data) > MOST_BYTES:
                        break
                return Reply(response.status, data, response.headers.get("Retry-After", ""))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Reply(0, f"{type(error).__name__} {error}".strip().encode())

    def _body(self, form: Form, prompt: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "messages": [{"role": "system", "content": self._system}, {"role": "user", "content": prompt}],
            form.limit: self.rubric.answer_tokens,
        }
        if form.temperature:
            body["temperature"] = 0
        if form.format == "json_schema":
            schema = {"name": "labels", "strict": True, "schema": self.rubric.schema()}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif form.format == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    def _refused(self, reply: Reply, form: Form) -> Answer | None:
        """Return the answer that a refused request comes to, None where it is to be sent in another form.

        Raises EndpointError where every request would be refused.
        """
        text, where = said(reply), self.endpoint.shown
        why = self._masked(text)
        if is_filtered(reply):
            return Answer(None, Tokens(), "refused", why)
        if is_too_long(reply):
            return Answer(None, Tokens(), "too long", why)
        if reply.status in (401, 403):
            hint = f"set {KEYS[0]}" if not self._key else f"correct {' or '.join(KEYS)}"
            raise EndpointError(f"{where} refuses the key ({reply.status}): {why}", f"{hint} in the environment")
        if reply.status in (402, 429):
            raise EndpointError(f"{where} gives no more answers: {why}", "see to the account, then run again to go on")
        if reply.status not in (400, 422):
            raise EndpointError(
                f"{where} answers {reply.status}: {why}",
                "see that the address ends as the server's does (most: /v1) and that it has this model",
            )
        if form != self.form or self._adapt(text):
            return None
        if self._answered:
            return Answer(None, Tokens(), "rejected", why)
        raise EndpointError(f"{where} refuses the request: {why}", "see that the server has this model")

    def _adapt(self, text: str) -> bool:
        """Ask in another form from now on, by what the server says it does not take; False where no form is left."""
        form, small = self.form, text.lower()
        if "max_completion_tokens" in small and form.limit == "max_tokens":
            self.form = replace(form, limit="max_completion_tokens")
        elif "temperature" in small and form.temperature:
            self.form = replace(form, temperature=False)
        elif form.format != FORMATS[-1] and (not self._answered or any(word in small for word in FORMAT_WORDS)):
            self.form = replace(form, format=FORMATS[FORMATS.index(form.format) + 1])
            self.note(f"the server refuses {form.format}: asking for {self.form.format}")
        return self.form != form

    async def _wait(self, reply: Reply, tried: int) -> None:
        """Wait before the next try: as long as the server asks all to, or longer each time."""
        asked = retry_after(reply)
        if asked > LONGEST_WAIT:
            raise EndpointError(
                f"{self.endpoint.shown} asks to wait {asked / 60:,.0f} minutes: {self._masked(said(reply))}",
                "run the same command then to go on",
            )
        if asked:
            self._paused = max(self._paused, asyncio.get_running_loop().time() + asked)
            await self._pause(asked + random.uniform(0.0, min(1.0, asked / 4)))
        else:
            await self._pause(random.uniform(0.5, 1.0) * min(MOST_WAIT, FIRST_WAIT * 2**tried))

    async def _pause(self, seconds: float) -> None:
        """Wait. Raises Stopped when the work is to stop meanwhile."""
        if seconds > 0:
            try:
                await asyncio.wait_for(self._stopping.wait(), seconds)
            except TimeoutError:
                return
            raise Stopped

    def _masked(self, text: str) -> str:
        return without_secrets(replaced(text, [self._key] if self._key else []))


def key() -> str:
    """Return the key in the environment, "" where there is none. Raises ConfigError for what cannot be one."""
    name = next((name for name in KEYS if name in os.environ), "")
    found = os.environ.get(name, "").strip()
    if not (found.isascii() and found.isprintable()):
        raise ConfigError(f"{name} has characters that no key has", "set it again")
    return found
