"""What every judge is: settings with a `kind`, `build`, and an object that turns completions into verdicts."""

import asyncio
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol

from prompts.load import PromptError, Template, load_prompt
from records.base import Strict
from records.schema import RETRYABLE, Completion, Prompt, Status, Usage
from serving.chat import Chat, Choice, Reply, Request, pack
from serving.errors import RequestFailed

Scope = Literal["completion", "prompt"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said of one completion on one aspect. Only status `ok` has a score."""

    aspect: str
    status: Status
    low: float | None
    high: float | None
    score: float | None = None
    distribution: dict[str, float] | None = None
    off_scale: float | None = None
    spread: float | None = None
    raw: str = ""
    detail: str = ""
    position: int | None = None
    usage: Usage = field(default_factory=Usage)
    replies: str = ""


class Unread(Exception):
    """A reply is no verdict. The judgement gets `status` and no score."""

    def __init__(self, detail: str, status: Status = "parse_error", off_scale: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status: Status = status
        self.off_scale = off_scale


class Judge(Protocol):
    """A judge sees a prompt and completions and, through `Chat`, one model. No server, disk or flow.

    Returns one verdict per completion on one of the judge's aspects, in their order. Raises what `Chat` raises.
    """

    async def __call__(
        self, prompt: Prompt, completions: Sequence[Completion], aspect: str
    ) -> list[Verdict]: ...


class Settings(Strict):
    """What the settings of all judges share. A judge has `kind`, `name`, `aspects` and, to ask one, `model`."""

    scope: ClassVar[Scope] = "completion"
    """completion: each is judged alone. prompt: all completions of a prompt are judged together, so another one is
    another question."""

    @property
    def alike(self) -> bool:
        """Its calls about one completion begin with the same text and differ in their last lines: asked one after the
        other, they are read from the server's prefix cache but for those lines."""
        return False

    @property
    def asks(self) -> str | None:
        """The recipe's model that is asked; None for a judge that asks none."""
        return getattr(self, "model", None)

    @property
    def longest(self) -> int:
        """Tokens of one reply, at most."""
        return getattr(self, "max_tokens", 1)

    def asked(self) -> dict[str, Any]:
        """Everything that decides its verdicts besides the model's identity and the aspect, texts included."""
        raise NotImplementedError

    def question(self, aspect: str) -> str:
        """The text that asks about one aspect; in each judgement's key, so a new aspect costs only its own calls."""
        return ""

    def context(self, prompt: Prompt, aspect: str) -> object:
        """What it reads of a prompt besides its messages; in each judgement's key. None: nothing."""
        return None

    def calls(self, completions: int) -> int:
        """Requests for so many completions of one prompt on one aspect."""
        return completions if self.asks else 0

    def build(self, chat: Chat | None) -> Judge:
        """The judge; without `chat` it can show what it would ask and read stored replies."""
        raise NotImplementedError


class Asking:
    """A judge that asks a model: `requests` says what, `read` makes verdicts of the replies.

    Nothing else is asked or read, so stored replies can be read again at any time.
    """

    def __init__(self, chat: Chat | None) -> None:
        self.chat = chat

    def requests(self, prompt: Prompt, completions: Sequence[Completion], aspect: str) -> list[Request]:
        raise NotImplementedError

    def read(
        self, prompt: Prompt, completions: Sequence[Completion], aspect: str, replies: Sequence[Reply]
    ) -> list[Verdict]:
        """One verdict per completion, in their order, from one reply per request."""
        raise NotImplementedError

    def kept(self, reply: Reply) -> Reply:
        """What of a reply is stored: all that `read` needs."""
        return reply

    async def __call__(self, prompt: Prompt, completions: Sequence[Completion], aspect: str) -> list[Verdict]:
        asked = self.requests(prompt, completions, aspect)
        requests = [replace(request, about=prompt.id) for request in asked]
        if requests and self.chat is None:
            raise ValueError(f"{type(self).__name__} has no model to ask")
        replies = await ask_all(self.chat, requests) if self.chat else []
        verdicts = self.read(prompt, completions, aspect, replies)
        spent = sum((reply.usage for reply in replies), Usage()).split(len(verdicts))
        verdicts = [replace(verdict, usage=own) for verdict, own in zip(verdicts, spent, strict=True)]
        packed = pack([self.kept(reply) for reply in replies])
        return [replace(verdicts[0], replies=packed), *verdicts[1:]] if replies else verdicts


def judge_prompt(name: str, shows: Collection[str], may_show: Collection[str] = ()) -> Template:
    """A judge's prompt file, which has a slot for all that the judge must see and none that nobody would fill.

    Raises:
        PromptError: it lacks one or has another, or it cannot be loaded; names the slots.
    """
    template = load_prompt(name)
    if missing := [slot for slot in shows if slot not in template.slots]:
        raise PromptError(
            f"{name} has no slot {_named(missing)}, without which the judge would not see it; "
            f"it has {_named(template.slots) or 'none'}"
        )
    if unknown := [slot for slot in template.slots if slot not in (*shows, *may_show)]:
        raise PromptError(
            f"{name} has the slot {_named(unknown)}, which this judge cannot fill; wanted {_named((*shows, *may_show))}"
        )
    return template


def _named(slots: Iterable[str]) -> str:
    return ", ".join(f"{{{{{slot}}}}}" for slot in slots)


async def ask_all(chat: Chat, requests: Sequence[Request]) -> list[Reply]:
    """The reply to each request. One that the server will never answer is a refusal among the others' replies, which
    are paid for; where it is the only one, it is raised."""

    async def ask(request: Request) -> Reply:
        try:
            return await chat(request)
        except RequestFailed as why:
            if why.reason in RETRYABLE or len(requests) == 1:
                raise
            return Reply((Choice("", "rejected", refusal=f"{why.reason}: {why.detail}"),))

    return await asyncio.gather(*map(ask, requests))


def conversation(prompt: Prompt) -> str:
    """What was asked, as one text: the user turn alone, or all turns with their roles."""
    turns = [message for message in prompt.messages if message.role != "system"]
    return turns[0].content if len(turns) == 1 else "\n\n".join(f"{m.role}: {m.content}" for m in turns)


_SPACES = dict.fromkeys(map(ord, "\u00a0\u2002\u2003\u2007\u2009\u200a\u202f\u205f\u3000"), " ")


def answer_of(text: str) -> str:
    """A reply without the thinking before it, its spaces and line ends plain; nothing where thinking never ended."""
    answer = text.rpartition("</think>")[2].translate(_SPACES).replace("\r\n", "\n")
    return "" if answer.lstrip().startswith("<think>") else answer


REFUSING = re.compile(
    r"\W*(?:i['’]?m sorry|sorry,|i (?:can(?:not|['’]t)|am (?:not able|unable)|won['’]t)|as an ai\b)", re.I
)


def unread(choice: Choice, detail: str) -> Unread:
    """Why a reply without a verdict has none: the model refused, was cut off, or said something else."""
    if choice.refusal or choice.finish_reason == "content_filter":
        return Unread(choice.refusal or "content filter", "refused")
    if choice.finish_reason == "length":
        return Unread(f"cut off at max_tokens: {detail}", "truncated")
    if len(choice.text) < 500 and REFUSING.match(answer_of(choice.text)):
        return Unread(" ".join(choice.text.split())[:200], "refused")
    return Unread(detail)


_SCORE = re.compile(
    r"""[\s*_\[("'`]*(?P<score>[0-9]+(?:\.[0-9]+)?)(?![\w%]|\.?[0-9])[\s*_\])"'`]*"""
    r"""(?:(?:/|out of)\s*(?P<of>[0-9]+(?:\.[0-9]+)?)(?![\w%]|\.?[0-9]))?(?P<rest>.*)""",
    re.IGNORECASE,
)


_ANOTHER = re.compile(
    r"""[\s\u200b(\[]*(?:(?:[,/~→–—+×-]>?|[\W_]*\b(?:or|no|not|rather|actually|maybe|perhaps|possibly|make|that|it|to|and"""
    r"""|wait)\b[\W_]*)[\s(\[]*)*[0-9]""",
    re.IGNORECASE,
)
"""What follows a score where it is not the only one: `7 or 8`, `7, no, 8`, `7 -> 8`, `1 0`."""

_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
"""Digits and signs as wide as a Chinese character, to plain ones."""


def _bare(line: str) -> str:
    """A line without what is put around a number: `<score>7</score>`, `<7>`, a LaTeX box."""
    line = line.translate(_WIDE).strip().lstrip("\u200b\ufeff").lstrip()
    line = re.sub(r"\$?\\boxed\{([^{}]*)\}\$?", r"\1", line)
    return re.sub(r"<(\w+)>([^<>]*)</\1>|<([0-9.]+)>", lambda m: m[2] or m[3] or "", line)


def read_score(line: str, low: float, high: float) -> float:
    """The score a line opens with: `7.5`, `7.5/10`, `**8**`, `[8] good`; 1 is 1.

    Raises:
        Unread: no number, several (`7 or 8`), another scale (`8/5`), or off the scale.
    """
    match = _SCORE.match(_bare(line))
    if match is None:
        raise Unread(f"no score in {line.strip()[:60]!r}")
    if _ANOTHER.match(match["rest"]):
        raise Unread(f"more than one score in {line.strip()[:60]!r}")
    if match["of"] is not None and float(match["of"]) != high:
        raise Unread(f"{line.strip()[:60]!r} is out of {match['of']}, wanted out of {high:g}")
    score = float(match["score"])
    if not low <= score <= high:
        raise Unread(f"{match['score']} is off the scale {low:g} to {high:g}")
    return score
