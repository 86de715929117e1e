"""A prompt, completions and replies for tests of judges, and a model that is a function."""

from collections.abc import Callable, Sequence
from typing import Any

from judges.base import Asking, Verdict
from records.schema import Completion, Message, Prompt, Usage
from serving.chat import Chat, Choice, Reply, Request, Token


def prompt(text: str = "Explain tea.", **meta: Any) -> Prompt:
    return Prompt(id="p", messages=(Message(role="user", content=text),), source="test", meta=meta)


def completion(id: str, text: str | None = None, **more: Any) -> Completion:
    text = f"text of {id}" if text is None else text
    return Completion(
        id=id, prompt_id="p", model="m", text=text, finish_reason="stop", fingerprint="f", **more
    )


def completions(*ids: str) -> list[Completion]:
    return [completion(id) for id in ids]


def said(text: str, finish_reason: str = "stop", logprobs: dict[str, float] | None = None) -> Reply:
    tokens = (Token(text, logprobs),) if logprobs else ()
    usage = Usage(prompt_tokens=10, completion_tokens=3, requests=1)
    return Reply((Choice(text, finish_reason, tokens),), usage)


def model(answer: Callable[[str], Reply | str]) -> tuple[Chat, list[Request]]:
    """A chat that answers the last message, and what it was asked."""
    asked: list[Request] = []

    async def chat(request: Request) -> Reply:
        asked.append(request)
        reply = answer(request.messages[-1]["content"])
        return said(reply) if isinstance(reply, str) else reply

    return chat, asked


def read_again(judge: Asking, of: Prompt, judged: Sequence[Completion], aspect: str, first: Verdict) -> Any:
    """What the stored replies of a row come to."""
    from serving.chat import unpack

    return judge.read(of, judged, aspect, unpack(first.replies))
