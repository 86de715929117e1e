"""Rate all completions of a prompt side by side, 1 to 5 with a rationale, one call per aspect.

UltraFeedback (arXiv 2310.01377; OpenBMB/UltraFeedback, src/data_annotation): its four aspects, scales, text-numbered
blocks and one seeded order per aspect, in our own wording. Unlike its code, any number of completions; a block belongs
to the text whose number it has, never to its place; one missing or doubled block leaves the whole call unread.
"""

import re
import statistics
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from judges.base import (
    Asking,
    Scope,
    Settings,
    Unread,
    Verdict,
    answer_of,
    conversation,
    judge_prompt,
    read_score,
    unread,
)
from prompts.load import Template, neutralise
from records.ids import chance
from records.schema import Completion, Prompt
from serving.chat import Chat, Reply, Request

LOW, HIGH = 1.0, 5.0
SHOWS, MAY_SHOW = ("instruction", "texts"), ("count", "knowledge")
Aspect = Literal["instruction_following", "honesty", "truthfulness", "helpfulness"]
MAY_NOT_APPLY = "honesty"
"""The aspect that may be N/A: a creative text has nothing to be honest about."""
NO_KNOWLEDGE = "No additional world knowledge for reference."


class UltraFeedback(Settings):
    """A model's ratings of all completions of a prompt, read side by side, as UltraFeedback was made."""

    scope: ClassVar[Scope] = "prompt"
    kind: Literal["ultrafeedback"] = "ultrafeedback"
    name: str = "ultrafeedback"
    model: str
    """The judge model: a name from the recipe's `models`."""
    aspects: tuple[Aspect, ...] = Field(
        default=("instruction_following", "honesty", "truthfulness", "helpfulness"), min_length=1
    )
    """One call each, over all completions."""
    prompt: str = "judges/ultrafeedback_{aspect}"
    """The judge's prompt files, one per aspect."""
    orders: int = Field(default=1, ge=1, le=16)
    """Orders in which the completions are shown, a call each; the score is the mean. UltraFeedback: 1. As many as
    there are completions show each once in each place; more are rounded down to a multiple of that."""
    seed: int = Field(default=0, ge=0)
    """Draws the orders, by prompt id and aspect."""
    temperature: float = Field(default=0.0, ge=0, le=5)
    """UltraFeedback: 0."""
    top_p: float = Field(default=0.6, gt=0, le=1)
    """UltraFeedback: 0.6."""
    max_tokens: int = Field(default=1024, ge=1)
    """Longest answer for all completions together, in tokens. UltraFeedback: 500, too few for some of its own."""

    def asked(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude={"name", "model", "aspects"})

    def question(self, aspect: str) -> str:
        """The whole text: each aspect has its own."""
        return self.template(aspect).text

    def template(self, aspect: str) -> Template:
        return judge_prompt(self.prompt.replace("{aspect}", aspect), SHOWS, MAY_SHOW)

    def context(self, prompt: Prompt, aspect: str) -> object:
        return knowledge(prompt) if "{{knowledge}}" in self.question(aspect) else None

    def calls(self, completions: int) -> int:
        return self.orders

    def build(self, chat: Chat | None) -> "SideBySide":
        return SideBySide(self, chat)


def knowledge(prompt: Prompt) -> str:
    """What is known to be true, from the prompt's `meta`: `world_knowledge`, or lists of right and wrong answers."""
    if said := prompt.meta.get("world_knowledge"):
        return str(said)
    lines = [
        f"{title}: {'; '.join(map(str, found))}"
        for title, key in (("Correct answers", "correct_answers"), ("Incorrect answers", "incorrect_answers"))
        if isinstance(found := prompt.meta.get(key), list | tuple) and found
    ]
    return "\n".join(lines) or NO_KNOWLEDGE


class SideBySide(Asking):
    """`UltraFeedback` with its texts loaded and a model to ask."""

    def __init__(self, settings: UltraFeedback, chat: Chat | None) -> None:
        super().__init__(chat)
        self.settings = settings
        self.templates = {a: settings.template(a) for a in settings.aspects}

    def orders(
        self, prompt: Prompt, completions: Sequence[Completion], aspect: str
    ) -> list[list[Completion]]:
        """Who stands where in each call; the same whatever order the completions come in."""
        base = sorted((c for c in completions if c.text.strip()), key=lambda c: c.id)
        found: list[list[Completion]] = []
        orders, texts = self.settings.orders, max(1, len(base))
        if orders > texts:  # whole rounds, or one text would stand first more often than another
            orders -= orders % texts
        for repetition in range(orders if base else 0):
            turn = repetition % len(base)
            if turn == 0:
                chance(self.settings.seed, "ultrafeedback", prompt.id, aspect, repetition).shuffle(base)
            found.append(base[turn:] + base[:turn])
        return found

    def message(self, prompt: Prompt, shown: Sequence[Completion], aspect: str) -> str:
        template = self.templates[aspect]
        markers = [*template.markers, "# Text", "Output for Text"]
        values = {
            "instruction": neutralise(conversation(prompt), markers),
            "texts": "\n\n".join(
                f"#### Text {i}\n{neutralise(c.text.strip(), markers)}" for i, c in enumerate(shown, 1)
            ),
            "count": str(len(shown)),
            "knowledge": neutralise(knowledge(prompt), markers),
        }
        return template.fill(**{slot: values[slot] for slot in template.slots})

    def requests(self, prompt: Prompt, completions: Sequence[Completion], aspect: str) -> list[Request]:
        own = self.settings
        return [
            Request(
                ({"role": "user", "content": self.message(prompt, shown, aspect)},),
                own.temperature,
                own.top_p,
                own.max_tokens,
            )
            for shown in self.orders(prompt, completions, aspect)
        ]

    def read(
        self, prompt: Prompt, completions: Sequence[Completion], aspect: str, replies: Sequence[Reply]
    ) -> list[Verdict]:
        orders = self.orders(prompt, completions, aspect)
        given: dict[str, list[tuple[int, Block]]] = {}
        try:
            for shown, reply in zip(orders, replies, strict=True):
                blocks = read_reply(reply, len(shown), aspect)
                for place, completion in enumerate(shown):
                    given.setdefault(completion.id, []).append((place, blocks[place + 1]))
        except Unread as why:
            raw = "\n\n".join(reply.choices[0].text for reply in replies)
            return [
                Verdict(aspect, why.status, LOW, HIGH, raw=raw, detail=why.detail)
                if c.text.strip()
                else empty(aspect)
                for c in completions
            ]
        return [verdict(aspect, given[c.id]) if c.id in given else empty(aspect) for c in completions]


def empty(aspect: str) -> Verdict:
    return Verdict(aspect, "not_applicable", LOW, HIGH, detail="the answer is empty")


class Block(NamedTuple):
    """What the judge wrote of one text."""

    rating: float | None
    """None: N/A."""
    rationale: str
    types: str
    """Numbers of the kinds it found, where the aspect asks for them."""
    raw: str


def verdict(aspect: str, given: Sequence[tuple[int, Block]]) -> Verdict:
    """One completion's verdict from its block in every order."""
    ratings = [block.rating for _, block in given if block.rating is not None]
    places = [place for place, _ in given]
    said = [
        f"types {block.types}: {block.rationale}" if block.types else block.rationale for _, block in given
    ]
    return Verdict(
        aspect,
        "ok" if ratings else "not_applicable",
        LOW,
        HIGH,
        score=statistics.fmean(ratings) if ratings else None,
        spread=statistics.stdev(ratings) if len(ratings) > 1 else None,
        raw="\n\n".join(block.raw for _, block in given),
        detail=said[0] if len(given) == 1 else f"shown at {places}; " + " | ".join(said),
        position=places[0] if len(given) == 1 else None,
    )


_BLOCK = re.compile(
    r"^[ \t#*_]*Output for Text[ \t]+<?([0-9]+)>?(?:[ \t]*\([^()\n]*\))?[ \t:：*_]*$",
    re.MULTILINE | re.IGNORECASE,
)
_FIELD = re.compile(r"^[ \t*_#-]*(Type|Rationale|Rating)[ \t*_]*[:：][ \t*_]*", re.MULTILINE | re.IGNORECASE)


def read_reply(reply: Reply, count: int, aspect: str) -> dict[int, Block]:
    """Text number -> block, exactly one for each of `count` texts.

    Raises:
        Unread: a block is missing, doubled or of no such text, or its rating cannot be read.
    """
    choice = reply.choices[0]
    if choice.refusal or choice.finish_reason == "content_filter":
        raise unread(choice, "")
    text = answer_of(choice.text)
    heads = list(_BLOCK.finditer(text))
    numbers = [int(head[1]) for head in heads]
    try:
        if sorted(numbers) != list(range(1, count + 1)):
            raise Unread(f"blocks for texts {numbers}, wanted one for each of 1 to {count}")
        ends = [head.start() for head in heads[1:]] + [len(text)]
        blocks = {
            number: read_block(text[head.end() : end].strip(), number, aspect)
            for number, head, end in zip(numbers, heads, ends, strict=True)
        }
        if choice.finish_reason == "length" and not _finished(blocks[numbers[-1]].raw):
            raise Unread(f"the rating of text {numbers[-1]} may not be finished")
    except Unread as why:
        raise unread(choice, why.detail) from why
    return blocks


def _finished(block: str) -> bool:
    """Whether something was said after the rating; else `4` may be the beginning of `4.5`."""
    head = list(_FIELD.finditer(block))[-1]
    return head[1].lower() != "rating" and bool(block[head.end() :].strip())


def read_block(text: str, number: int, aspect: str) -> Block:
    """Fields by their names, over any number of lines, blank ones too."""
    found: dict[str, list[str]] = {"type": [], "rationale": [], "rating": []}
    heads = list(_FIELD.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    for head, end in zip(heads, ends, strict=True):
        found[head[1].lower()].append(text[head.end() : end].strip())
    if len(found["rating"]) != 1:
        raise Unread(f"text {number} has {len(found['rating'])} ratings, wanted one")
    line = found["rating"][0].split("\n")[0]
    rationale, types = (found["rationale"] or [""])[-1], " ".join(found["type"])
    if re.match(r"\W*n\s*/\s*a\b", line, re.IGNORECASE):
        if aspect != MAY_NOT_APPLY:
            raise Unread(f"text {number} is rated N/A, which only {MAY_NOT_APPLY} may be")
        return Block(None, rationale, types, text)
    try:
        return Block(read_score(line, LOW, HIGH), rationale, types, text)
    except Unread as why:
        raise Unread(f"text {number}: {why.detail}") from why
