"""Four ways to lay out a judge's prompt about four aspects, and what their replies say: for `benchmarks.prefix`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from judges import written
from judges.base import Asking
from judges.rating import LABELS, Rating
from judges.ultrafeedback import UltraFeedback
from prompts.load import load_prompt, neutralise
from records.schema import Completion, Prompt, Usage
from serving.chat import Reply, Request

ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")
NAMES = ("question last", "rubric first", "one call", "side by side")
ALL_AT_ONCE = (
    "{questions}\nReply with JSON and nothing else, each score one digit from 1 (worst) to 5 (best): {form}"
)


@dataclass(frozen=True)
class Item:
    """A prompt with its answers; `best` is the place of the one that people prefer."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    best: int | None = None


@dataclass
class Layout:
    """One way of asking, and what it was asked and answered."""

    name: str
    chains: list[list[Request]]
    """Each asked in turn, or, with one request in each, all at once."""
    about: list[str]
    """The id of each chain's prompt."""
    replies: dict[int, Reply] = field(default_factory=dict)
    """By the request's number, counted through the chains."""

    @property
    def requests(self) -> list[Request]:
        return [request for chain in self.chains for request in chain]

    @property
    def prompts(self) -> list[str]:
        """The prompt's id of each request."""
        return [id for id, chain in zip(self.about, self.chains, strict=True) for _ in chain]

    @property
    def usage(self) -> Usage:
        return sum((reply.usage for reply in self.replies.values()), Usage())


def question_last(items: Sequence[Item], prefix: str, prompt: str | None = None) -> list[list[Request]]:
    """A chain for each answer, as flows ask."""
    judge = rating(prefix, prompt).build(None)
    return [
        [request for aspect in ASPECTS for request in judge.requests(item.prompt, [completion], aspect)]
        for item in items
        for completion in item.completions
    ]


def rubric_first(items: Sequence[Item], prefix: str, prompt: str) -> list[list[Request]]:
    """A chain for each prompt, aspect by aspect: an instruction is then read once per aspect."""
    judge = rating(prefix, prompt).build(None)
    return [
        [request for aspect in ASPECTS for request in judge.requests(item.prompt, item.completions, aspect)]
        for item in items
    ]


def one_call(items: Sequence[Item]) -> list[list[Request]]:
    questions = "\n".join(f"{aspect}: {load_prompt(f'aspects/{aspect}').text.strip()}" for aspect in ASPECTS)
    form = ", ".join(f'"{aspect}": "digit"' for aspect in ASPECTS)
    question = ALL_AT_ONCE.format(questions=questions, form="{" + form + "}")
    score = {"type": "string", "enum": list(LABELS)}
    schema = written.schema(LABELS, True, "reason") | {
        "properties": dict.fromkeys(ASPECTS, score),
        "required": list(ASPECTS),
    }
    template = load_prompt("judges/rating_short")
    body = template.text.rpartition("{{question}}")[0]
    return [
        [
            Request(
                (
                    {
                        "role": "user",
                        "content": body.replace(
                            "{{instruction}}", neutralise(item.prompt.text, template.markers)
                        ).replace("{{response}}", neutralise(completion.text, template.markers))
                        + question,
                    },
                ),
                0.0,
                1.0,
                64,
                schema=schema,
            )
        ]
        for item in items
        for completion in item.completions
    ]


def side_by_side(items: Sequence[Item]) -> list[list[Request]]:
    """Its prompts alone: one token is asked for, since small models do not write such answers."""
    judge = UltraFeedback(model="m", max_tokens=1).build(None)
    return [
        [request]
        for item in items
        for aspect in ASPECTS
        for request in judge.requests(item.prompt, item.completions, aspect)
    ]


def rating(prefix: str, prompt: str | None) -> Rating:
    return Rating(model="m", aspects=ASPECTS, prefix=prefix, prompt=prompt, min_mass=0.1)


def layouts(items: Sequence[Item], prefix: str, folder: Path) -> list[Layout]:
    text = load_prompt("judges/rating").text
    head, question = text.split("\n\n", 1)[0], text.rpartition("### Grade\n")[2].strip()
    first = (
        text.replace(head, f"{head}\n\n### Question\n{question}").rpartition("\n\n### Grade")[0]
        + "\n\n### Grade"
    )
    file = folder / "rubric_first.md"
    header = "---\nsource: prompts/judges/rating.md, its question moved\nlicense: Apache-2.0\n"
    file.write_text(f"{header}slots: [instruction, response, question]\n---\n{first}\n")
    return [
        Layout(name, chains, [one.prompt.id for one in items for _ in range(len(chains) // len(items))])
        for name, chains in zip(
            NAMES,
            (
                question_last(items, prefix),
                rubric_first(items, prefix, str(file)),
                one_call(items),
                side_by_side(items),
            ),
            strict=True,
        )
    ]


def scores_of(layout: Layout, items: Sequence[Item], prefix: str) -> dict[tuple[str, str], float]:
    """(prompt, completion) -> mean over its aspects; without those where one failed."""
    judge: Asking = rating(prefix, None).build(None)
    found: dict[tuple[str, str], list[float | None]] = {}
    at = iter(range(len(layout.requests)))
    for item in items:
        pairs = [(a, c) for c in item.completions for a in ASPECTS]
        if layout.name == "rubric first":
            pairs = [(a, c) for a in ASPECTS for c in item.completions]
        if layout.name == "one call":
            for completion in item.completions:
                found[item.prompt.id, completion.id] = at_once(layout.replies[next(at)])
            continue
        for aspect, completion in pairs:
            (verdict,) = judge.read(item.prompt, [completion], aspect, [layout.replies[next(at)]])
            found.setdefault((item.prompt.id, completion.id), []).append(verdict.score)
    whole = {key: [s for s in own if s is not None] for key, own in found.items()}
    return {key: sum(own) / len(own) for key, own in whole.items() if len(own) == len(ASPECTS)}


def at_once(reply: Reply) -> list[float | None]:
    """The four written scores."""
    try:
        data = orjson.loads(reply.choices[0].text)
        return [float(data[aspect]) if data[aspect] in LABELS else None for aspect in ASPECTS]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return [None]
