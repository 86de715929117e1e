"""Compare every two completions of a prompt in both orders; a completion's score is its mean chance to win.

One token says which of two is better. Judges prefer a place (MT-bench, arXiv 2306.05685), so each pair is asked in both
orders and the probabilities are averaged before anything is decided: p = (p_AB + 1 - p_BA) / 2. A score is the mean of
p over all opponents, 0 (loses to all) to 1 (beats all), as in a Copeland count with probabilities for votes.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from judges.base import Asking, Scope, Settings, Unread, Verdict, conversation, judge_prompt
from judges.labels import ask_label, read_label, spoken
from prompts.load import load_prompt, neutralise
from records.schema import Completion, Prompt
from serving.chat import Chat, Reply, Request

FIRST, SECOND, TIE = "A", "B", "C"
EQUAL = 1e-9
SHOWS, MAY_SHOW = ("instruction", "first", "second", "question"), ("labels", "reference")


class Pairwise(Settings):
    """A model's choice between every two completions, in both orders."""

    scope: ClassVar[Scope] = "prompt"
    kind: Literal["pairwise"] = "pairwise"
    name: str = "pairwise"
    model: str
    """The judge model: a name from the recipe's `models`."""
    aspects: tuple[str, ...] = Field(default=("quality",), min_length=1)
    """Files of prompts/aspects, each a question both responses are judged by; n * (n - 1) calls each for n completions
    of a prompt."""
    prompt: str = "judges/pairwise"
    """The judge's prompt file. `judges/pairwise_rules` adds a paragraph on what must not count,
    `judges/pairwise_reference` shows the prompt's `reference`; a prompt without one is then not judged."""
    ties: Literal["none", "label"] = "none"
    """label: the model may answer C for a tie, which is half a win for each. none: it must choose."""
    prefix: str = ""
    """How the judge model's answer begins, for small models that would not begin with a letter: "Better: ". Needs vLLM
    or llama.cpp."""
    constrained: bool = True
    """The server allows nothing but a label, where it can. vLLM then hides what the model would rather have said."""
    min_mass: float = Field(default=0.5, gt=0, le=1)
    """Least probability the labels must have together; below it the model was not choosing: `off_scale`."""
    samples: int = Field(default=0, ge=0, le=64)
    """0 reads log-probabilities, or, of an endpoint that was found to give none, 8 answers; above 0 that many answers
    are drawn in any case."""
    top_logprobs: int = Field(default=20, ge=5, le=100)
    """Alternatives asked for. vLLM and OpenAI allow 20."""

    @property
    def labels(self) -> tuple[str, ...]:
        return (FIRST, SECOND, TIE) if self.ties == "label" else (FIRST, SECOND)

    @property
    def longest(self) -> int:
        return max(1, self.samples)

    def asked(self) -> dict[str, Any]:
        settings = self.model_dump(mode="json", exclude={"name", "model", "aspects"})
        return settings | {"text": judge_prompt(self.prompt, SHOWS, MAY_SHOW).text}

    def question(self, aspect: str) -> str:
        return load_prompt(f"aspects/{aspect}").text.strip()

    def context(self, prompt: Prompt, aspect: str) -> object:
        return prompt.meta.get("reference") if "reference" in load_prompt(self.prompt).slots else None

    def calls(self, completions: int) -> int:
        return completions * (completions - 1)

    def build(self, chat: Chat | None) -> "Comparing":
        return Comparing(self, chat)


class Comparison(NamedTuple):
    """One completion against another."""

    p: float
    """Chance that it is the better one, both orders averaged."""
    first: float
    """That chance when it was shown first."""
    second: float
    """And when it was shown second."""

    @property
    def outcome(self) -> Literal["wins", "loses", "tie", "inconsistent"]:
        """inconsistent: each order has another winner, so that the place decided."""
        if (self.first - 0.5) * (self.second - 0.5) < -EQUAL:
            return "inconsistent"
        return "tie" if abs(self.p - 0.5) < EQUAL else "wins" if self.p > 0.5 else "loses"


def compare(shown_first: dict[str, float], shown_second: dict[str, float]) -> Comparison:
    """From the labels' shares when the completion was A, and when it was B. A tie is half a win."""
    first = shown_first[FIRST] + shown_first.get(TIE, 0.0) / 2
    second = shown_second[SECOND] + shown_second.get(TIE, 0.0) / 2
    return Comparison((first + second) / 2, first, second)


class Comparing(Asking):
    """`Pairwise` with its texts loaded and a model to ask."""

    def __init__(self, settings: Pairwise, chat: Chat | None) -> None:
        super().__init__(chat)
        self.settings, self.template = settings, judge_prompt(settings.prompt, SHOWS, MAY_SHOW)
        self.questions = {aspect: settings.question(aspect) for aspect in settings.aspects}

    def duels(self, prompt: Prompt, completions: Sequence[Completion]) -> list[tuple[Completion, Completion]]:
        """(A, B) of every call, those with the same A side by side. Equal texts are a tie and not asked."""
        if "reference" in self.template.slots and prompt.meta.get("reference") is None:
            return []
        written = sorted((c for c in completions if c.text.strip()), key=lambda c: c.id)
        return [(a, b) for a, b in permutations(written, 2) if a.text.strip() != b.text.strip()]

    def message(self, prompt: Prompt, first: Completion, second: Completion, aspect: str) -> str:
        markers = self.template.markers
        values = {
            "instruction": neutralise(conversation(prompt), markers),
            "first": neutralise(first.text.strip(), markers),
            "second": neutralise(second.text.strip(), markers),
            "question": self.questions[aspect],
            "labels": "A, B, or C for a tie" if self.settings.ties == "label" else "A or B",
            "reference": neutralise(str(prompt.meta.get("reference")), markers),
        }
        return self.template.fill(**{slot: values[slot] for slot in self.template.slots})

    def requests(self, prompt: Prompt, completions: Sequence[Completion], aspect: str) -> list[Request]:
        own = self.settings
        return [
            ask_label(
                ({"role": "user", "content": self.message(prompt, first, second, aspect)},),
                own.labels,
                samples=own.samples,
                prefix=own.prefix,
                top_logprobs=own.top_logprobs,
                constrained=own.constrained,
            )
            for first, second in self.duels(prompt, completions)
        ]

    def read(
        self, prompt: Prompt, completions: Sequence[Completion], aspect: str, replies: Sequence[Reply]
    ) -> list[Verdict]:
        duels = {
            (a.id, b.id): reply
            for (a, b), reply in zip(self.duels(prompt, completions), replies, strict=True)
        }
        written = [c for c in completions if c.text.strip()]
        return [self._verdict(prompt, c, written, aspect, duels) for c in completions]

    def first_wins(
        self, prompt: Prompt, completions: Sequence[Completion], replies: Sequence[Reply]
    ) -> dict[tuple[str, str], float | None]:
        """(id of A, id of B) -> chance that A is better, as said in this order alone; None: no verdict."""
        found: dict[tuple[str, str], float | None] = {}
        for (a, b), reply in zip(self.duels(prompt, completions), replies, strict=True):
            try:
                shares = self._shares(reply)
            except Unread:
                found[a.id, b.id] = None
            else:
                found[a.id, b.id] = shares[FIRST] + shares.get(TIE, 0.0) / 2
        return found

    def _verdict(
        self,
        prompt: Prompt,
        own: Completion,
        written: Sequence[Completion],
        aspect: str,
        duels: dict[tuple[str, str], Reply],
    ) -> Verdict:
        others = sorted((c for c in written if c.id != own.id), key=lambda c: c.id)
        if "reference" in self.template.slots and prompt.meta.get("reference") is None:
            return Verdict(aspect, "not_applicable", 0, 1, detail="the prompt has no reference")
        if not own.text.strip() or not others:
            why = "nothing to compare it with" if own.text.strip() else "the answer is empty"
            return Verdict(aspect, "not_applicable", 0, 1, detail=why)
        found: list[Comparison] = []
        said: list[str] = []
        raw: list[str] = []
        failed: Unread | None = None
        for other in others:
            if (own.id, other.id) not in duels:
                found.append(Comparison(0.5, 0.5, 0.5))
                said.append(f"against {other.id}: 0.50, tie, the same text")
                continue
            both = duels[own.id, other.id], duels[other.id, own.id]
            raw.append("/".join(spoken(reply) for reply in both))
            try:
                found.append(compare(*(self._shares(reply) for reply in both)))
            except Unread as why:
                failed = failed or why
                said.append(f"against {other.id}: {why.status}, {why.detail}")
                continue
            p, first, second = found[-1]
            said.append(
                f"against {other.id}: {p:.2f} (first {first:.2f}, second {second:.2f}), {found[-1].outcome}"
            )
        text, detail = " ".join(raw), "; ".join(said)
        if failed:  # a mean over fewer opponents would be on another scale than its siblings'
            return Verdict(aspect, failed.status, 0, 1, raw=text, detail=detail, off_scale=failed.off_scale)
        score = sum(one.p for one in found) / len(found)
        return Verdict(aspect, "ok", 0, 1, score=min(1.0, max(0.0, score)), raw=text, detail=detail)

    def _shares(self, reply: Reply) -> dict[str, float]:
        own = self.settings
        return read_label(reply, own.labels, samples=own.samples, min_mass=own.min_mass).shares
