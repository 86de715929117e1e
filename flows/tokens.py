"""How many tokens a run's requests come to, before any is sent: rendered for a sample of prompts, counted by letters.

The requests are the real ones, by the samplers and judges that will send them, so a judge's layout, principles and
aspects count as they are. Only answers that nobody has written yet are stood in for, by text of the expected length.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from flows.answers import principle_of, with_principle
from judges.base import Asking
from judges.jury import Member
from records.schema import Completion, Prompt
from records.store import Row
from serving.chat import Request
from serving.settings import Sampler

LETTERS_PER_TOKEN = 4.0
"""English text; the estimate needs no tokenizer."""
MESSAGE_TOKENS = 4
"""A chat template's marks around one message, as ChatML has them."""
BLOCK = 16
"""Tokens of a block of vLLM's prefix cache."""
USUAL_PROMPT = 185
"""Tokens of a prompt that is not read yet: UltraFeedback's mean (arXiv 2310.01377)."""
USUAL_ANSWER, USUAL_REASON = 350, 200
"""Tokens of an answer where nothing is known, and of a judge's reasons: UltraFeedback's means."""
ENOUGH = 20
"""Answers that say how long a sampler's answers are."""
COUNTED = 2000
"""Prompts whose requests to a sampler are counted."""
SAMPLE = 200
"""Prompts whose judge requests are rendered."""


def letters_of(messages: Sequence[dict[str, str]]) -> float:
    """Tokens of a conversation."""
    return sum(len(m["content"]) / LETTERS_PER_TOKEN + MESSAGE_TOKENS for m in messages)


def answer_tokens(sampler: Sampler, rows: dict[str, Row]) -> float:
    """Tokens of one answer: the mean of those that are there already, else UltraFeedback's."""
    known = [answer["usage"]["completion_tokens"] for row in rows.values() for answer in row.answers]
    return fmean(known) if len(known) >= ENOUGH else float(min(sampler.max_tokens, USUAL_ANSWER))


def prompt_tokens(sampler: Sampler, prompts: Sequence[Prompt], seed: int, asked: str) -> float:
    """Tokens of one sampler's requests for these prompts, principles included; of many, by a sample."""
    total, sample = 0.0, prompts[:: max(1, len(prompts) // COUNTED)]
    for prompt in sample:
        principle = principle_of(prompt, sampler, seed, asked)
        messages = with_principle(prompt, principle.text if principle else None)
        total += letters_of([message.model_dump() for message in messages])
    return total * len(prompts) / max(1, len(sample))


@dataclass(frozen=True)
class Judging:
    """One request of a judge, on the mean."""

    tokens: float
    uncached: float
    """Those that no request before it has brought into the prefix cache: the judge's own words are read once, what is
    judged once for all its aspects."""


def judge_tokens(
    member: Member,
    prompts: Sequence[Prompt],
    samplers: Sequence[tuple[Sampler, float]],
    near: bool,
    drawn: Callable[[str], Collection[str]],
) -> Judging:
    """`samplers`: each with the tokens of its answers. `drawn`: names of those that answer a prompt, by its id.
    `near`: a prompt's answers are judged at about one time, so the prompt is read once for all of them."""
    step = max(1, len(prompts) // SAMPLE)
    tokens, uncached, count = 0.0, 0.0, 0
    judge = member.build(None)
    if not isinstance(judge, Asking):
        return Judging(0.0, 0.0)
    words: set[int] = set()
    for prompt in prompts[::step]:
        own: set[int] = set()
        for case in _cases(member, prompt, [own for own in samplers if own[0].name in drawn(prompt.id)]):
            own = own if near else set()
            for aspect in member.aspects:
                for request in judge.requests(prompt, case, aspect):
                    size = letters_of(request.messages)
                    hits = 0
                    for block in _blocks(request):
                        if block not in own and block not in words:
                            break
                        hits += BLOCK
                    own.update(_blocks(request))
                    tokens, uncached, count = tokens + size, uncached + max(0.0, size - hits), count + 1
        words = words & own if words else own  # what all requests begin with
    return Judging(tokens / max(1, count), uncached / max(1, count))


def _cases(
    member: Member, prompt: Prompt, samplers: Sequence[tuple[Sampler, float]]
) -> Iterator[tuple[Completion, ...]]:
    every = tuple(
        Completion(
            id=f"{sampler.name}-{i}-{prompt.id}",
            prompt_id=prompt.id,
            model=sampler.name,
            sample=i,
            text=f"{sampler.name} {i} ".ljust(max(8, round(tokens * LETTERS_PER_TOKEN)), "x"),
            finish_reason="stop",
            fingerprint="",
        )
        for sampler, tokens in samplers
        for i in range(sampler.n)
    )
    if member.scope == "prompt":
        yield every
    else:
        yield from ((one,) for one in every)


def _blocks(request: Request) -> Iterator[int]:
    """The request's whole blocks, each hashed with all before it."""
    text = "\n".join(f"{message['role']}: {message['content']}" for message in request.messages)
    size, before = round(BLOCK * LETTERS_PER_TOKEN), 0
    for at in range(0, len(text) - size + 1, size):
        before = hash((before, text[at : at + size]))
        yield before


def reason_tokens(member: Member) -> float:
    """Tokens of one reply of a judge."""
    return float(min(member.longest, USUAL_REASON))
