"""The oracle itself: a request in, a reply out, and in the ledger what was meant by it.

Where a request comes from is in its path, since one model may write and judge, and judge in several ways:
/write/v1 for the samplers, /<kind>/<judge>/v1 for a judge.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from oracle import critique, listwise, reward, tokens, written
from oracle.luck import dice
from oracle.reply import Meant, Rates, Reply, readable_shares
from oracle.tasks import Answer, Writer
from oracle.wording import (
    Fields,
    Shown,
    Unanswerable,
    block,
    check_scale,
    json_fields,
    named_labels,
    score_line,
    shown,
)

KINDS = ("rating", "pairwise", "critique", "ultrafeedback", "reward_model")
"""Judges that ask a model, and that the oracle can be."""
LETTERS = 4
"""Of a reply's text to a token, about: for saying that max_tokens is too few."""
Messages = Sequence[dict[str, str]]


def key_of(judge: str, messages: Messages) -> str:
    """Stands for one question to one judge."""
    text = "\x1f".join((judge, *(message["content"] for message in messages)))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Oracle:
    """Writes, judges and keeps account."""

    writer: Writer
    rates: Rates
    ledger: dict[str, Meant] = field(default_factory=dict)
    """By `key_of`."""
    least: dict[str, float] = field(default_factory=dict)
    """Judge -> least share of the probability that labels must have together; a half where it is not here."""
    complaints: dict[str, Counter[str]] = field(default_factory=dict)
    """Judge -> what its prompts lack -> how often."""
    requests: int = 0

    def write(self, body: dict[str, Any]) -> Reply:
        """The n answers to a prompt."""
        self.requests += 1
        prompt = body["messages"][-1]["content"]
        asked = [body.get("model"), body.get("seed"), body.get("temperature"), prompt]
        found = [self.writer.write(repr([*asked, i]), prompt) for i in range(body.get("n") or 1)]
        texts: list[str | None] = [answer.text if answer else "" for answer in found]
        cut = len(found) == 1 and found[0] is not None and found[0].finish_reason == "length"
        return Reply(texts, "length" if cut else "stop")

    def judge(self, kind: str, judge: str, body: dict[str, Any]) -> Reply:
        """A verdict as the prompt asks for it, or a bad one where the dice say so."""
        self.requests += 1
        messages: Messages = body["messages"]
        if messages[-1]["role"] == "assistant" and kind != "reward_model":
            messages = messages[:-1]
        key = key_of(judge, messages)
        chance = dice(self.rates.seed, key)
        try:
            reply, meant = self._judged(kind, judge, messages, body, chance)
            if meant.form != "clean" and not meant.readable and self._blocked(key):
                reply = Reply(["the prompt was blocked by a content policy"], status=400)
                meant.form = "blocked by the provider"
        except Unanswerable as why:
            self.complaints.setdefault(judge, Counter())[str(why)] += 1
            reply = Reply([f"I cannot tell what is asked of me: {why}"], status=400)
            meant = Meant("unanswerable", (), False, {}, {}, str(why))
        self.ledger[key] = meant
        return reply

    def _judged(
        self, kind: str, judge: str, messages: Messages, body: dict[str, Any], chance: random.Random
    ) -> tuple[Reply, Meant]:
        if kind == "reward_model":
            return self._reward(messages, chance)
        seen = shown("\n".join(message["content"] for message in messages), self.writer.written)
        if kind not in ("critique", "ultrafeedback"):
            return self._label(kind, judge, seen, body, chance)
        reply, meant = (self._critique if kind == "critique" else self._listwise)(seen, chance)
        most = body.get("max_tokens") or body.get("max_completion_tokens") or 0
        if len(meant.text) > LETTERS * most:
            raise Unanswerable(
                f"a verdict takes about {len(meant.text) // LETTERS} tokens, max_tokens is {most}"
            )
        return reply, meant

    def trouble(self, chance: random.Random) -> str:
        """What goes wrong with this reply; empty: nothing."""
        at, rates = chance.random(), self.rates
        for kind in ("malformed", "truncated", "refused"):
            share = getattr(rates, kind)
            if at < share:
                return kind
            at -= share
        return ""

    def _blocked(self, key: str) -> bool:
        """Some providers refuse with a status instead of a reply."""
        return dice(self.rates.seed, "blocked", key).random() < 0.1

    def opinion(self, answer: Answer, chance: random.Random) -> float:
        """The quality as the oracle sees it today: 0 to 1, room for the bias left above."""
        noisy = answer.quality + self.rates.noise * max(-2.0, min(2.0, chance.gauss(0, 1)))
        return min(1.0, max(0.0, noisy))

    def _critique(self, seen: Shown, chance: random.Random) -> tuple[Reply, Meant]:
        (answer,) = _only(seen, 1)
        check_scale(seen.wording, 1, 10)
        name = score_line(seen.wording, 10)
        value = 1 + round(self.opinion(answer, chance) * 18) / 2
        trouble, form, readable = self.trouble(chance), "clean", True
        if trouble:
            form, readable, reply = critique.badly(trouble, name, value, chance, 1, 10)
        else:
            reply = critique.clean(name, value, chance, 1, 10)
        values: dict[str, float | None] = {answer.tag: value}
        return reply, Meant(form, (answer.tag,), readable, values, values, _text(reply))

    def _listwise(self, seen: Shown, chance: random.Random) -> tuple[Reply, Meant]:
        check_scale(seen.wording, 1, 5)
        form_asked = block(seen.wording)
        values: dict[str, float | None] = {}
        unbiased: dict[str, float | None] = {}
        step = 0.25
        bias = round(4 * self.rates.bias / step) * step  # whole steps, so that it is the same for every text
        for place, answer in enumerate(seen.answers):
            plain = 1 + round(self.opinion(answer, chance) * (4 - bias) / step) * step
            said = plain + bias if place == seen.first else plain
            none = "N/A" in seen.wording and dice(self.rates.seed, "N/A", answer.tag).random() < 0.05
            values[answer.tag] = None if none else said
            unbiased[answer.tag] = None if none else plain
        rated = list(values.values())
        trouble, form, readable = self.trouble(chance), "clean", True
        if trouble:
            form, readable, reply = listwise.badly(trouble, form_asked, rated, chance)
        else:
            reply = Reply([listwise.clean(form_asked, rated, chance)])
        return reply, Meant(form, tuple(values), readable, values, unbiased, _text(reply))

    def _label(
        self, kind: str, judge: str, seen: Shown, body: dict[str, Any], chance: random.Random
    ) -> tuple[Reply, Meant]:
        if kind == "rating":
            shares, meaning, plain = self._grade(seen, chance)
        else:
            shares, meaning, plain = self._choice(seen, chance)
        tags, trouble = tuple(answer.tag for answer in seen.answers), self.trouble(chance)
        fields = json_fields(seen.wording, 1, 5) if kind == "rating" and "JSON" in seen.wording else None
        if (n := body.get("n") or 1) > 1 or not body.get("logprobs"):
            return self._samples(shares, meaning, plain, tags, n, trouble, fields, chance)
        if fields is not None:
            return self._written(judge, fields, shares, meaning, tags, trouble, chance)
        form = None
        if trouble:
            table = {"malformed": tokens.MALFORMED, "truncated": tokens.TRUNCATED, "refused": tokens.REFUSED}[
                trouble
            ]
            form = chance.choice(table)
        reply = form.write(shares, chance) if form else tokens.clean(shares, chance)
        value = sum(meaning[label] * share for label, share in shares.items())
        said = f"{_text(reply)!r}: {readable_shares(shares)}"
        name, readable = form.name if form else "clean", form is None or form.readable
        if form is not None and form.on_labels < self.least.get(judge, 0.5):
            readable = False
        return reply, Meant(name, tags, readable, {tags[0]: value}, {tags[0]: plain(value)}, said)

    def _written(
        self,
        judge: str,
        fields: Fields,
        shares: dict[str, float],
        meaning: dict[str, float],
        tags: tuple[str, ...],
        trouble: str,
        chance: random.Random,
    ) -> tuple[Reply, Meant]:
        form, readable, as_written = "clean", True, False
        if trouble:
            least = self.least.get(judge, 0.5)
            form, readable, as_written, reply = written.badly(trouble, fields, shares, least, chance)
        else:
            reply = written.clean(fields, shares, chance)
        value = sum(meaning[label] * share for label, share in shares.items())
        if as_written:
            value = meaning[max(shares, key=lambda label: shares[label])]
        values: dict[str, float | None] = {tags[0]: value}
        return reply, Meant(
            form, tags, readable, values, values, f"{_text(reply)}: {readable_shares(shares)}"
        )

    def _samples(
        self,
        shares: dict[str, float],
        meaning: dict[str, float],
        plain: Any,
        tags: tuple[str, ...],
        n: int,
        trouble: str,
        fields: Fields | None,
        chance: random.Random,
    ) -> tuple[Reply, Meant]:
        labels = tokens.drawn(shares, n)
        chance.shuffle(labels)
        spoilt = 0
        if trouble == "malformed":
            spoilt = chance.randrange(n + 1)
        readable = 2 * (n - spoilt) >= n and n > spoilt and trouble in ("", "malformed")
        texts: list[str | None] = list(labels)
        form = f"{n} answers"
        if trouble == "malformed":
            form = f"{spoilt} of {n} answers say none"
        if fields is not None:
            texts = [written.sample(fields, label, i >= n - spoilt, chance) for i, label in enumerate(labels)]
        elif trouble == "malformed":
            texts = tokens.samples(labels, spoilt, tuple(shares), chance)
        reply = Reply(texts)
        if trouble == "truncated":
            reply, form = Reply([""] * n, "length"), "cut before anything"
        elif trouble == "refused":
            reply, form = Reply([None] * n, refusal=tokens.SORRY), "refusal field"
            if chance.random() < 0.5:
                reply, form = Reply(texts, "content_filter"), "content filter"
        kept = labels[: n - spoilt]
        value = sum(meaning[label] for label in kept) / len(kept) if kept else None
        unbiased = None if value is None else plain(value)
        return reply, Meant(form, tags, readable, {tags[0]: value}, {tags[0]: unbiased}, _text(reply))

    def _grade(self, seen: Shown, chance: random.Random) -> tuple[dict[str, float], dict[str, float], Any]:
        (answer,) = _only(seen, 1)
        check_scale(seen.wording, 1, 5)
        mean = 4 * self.opinion(answer, chance)
        shares = {str(label + 1): 0.05 + max(0.0, 1 - abs(mean - label)) for label in range(5)}
        total = sum(shares.values())
        shares = {label: share / total for label, share in shares.items()}
        return shares, {label: float(label) for label in shares}, lambda value: value

    def _choice(self, seen: Shown, chance: random.Random) -> tuple[dict[str, float], dict[str, float], Any]:
        """The chance of A to be better, in the middle so that neither bias nor noise runs over the ends."""
        one, other = _only(seen, 2)
        room = 0.5 - self.rates.bias - 0.01
        gap = self.opinion(one, chance) - self.opinion(other, chance)
        bias = self.rates.bias if seen.first == 0 else -self.rates.bias
        p = 0.5 + room * gap + bias
        ties = bool(_may_tie(seen.wording))
        named_labels(seen.wording, "ABC" if ties else "AB")
        shares = {"A": p, "B": 1 - p}
        if ties:
            tie = 0.3 * min(p, 1 - p)
            shares = {"A": p - tie / 2, "B": 1 - p - tie / 2, "C": tie}
        return shares, {"A": 1.0, "B": 0.0, "C": 0.5}, lambda value: value - bias

    def _reward(self, messages: Messages, chance: random.Random) -> tuple[Reply, Meant]:
        answer = self.writer.find(messages[-1]["content"])
        if answer is None or answer.text.strip() != messages[-1]["content"].strip():
            raise Unanswerable("the conversation does not end with the whole answer")
        value = 16 * self.opinion(answer, chance) - 9
        trouble, form, readable = self.trouble(chance), "clean", True
        if trouble:
            form, readable, reply, value = reward.badly(trouble, value, chance)
        else:
            reply = reward.clean(value)
        values: dict[str, float | None] = {answer.tag: value}
        return reply, Meant(
            form, (answer.tag,), readable, values, values, str(reply.scores or reply.texts[0])
        )


def _only(seen: Shown, count: int) -> tuple[Answer, ...]:
    if len(seen.answers) != count:
        raise Unanswerable(f"the prompt shows {len(seen.answers)} answers, wanted {count}")
    return seen.answers


def _may_tie(wording: str) -> bool:
    return "C for a tie" in wording


def _text(reply: Reply) -> str:
    return " | ".join("" if text is None else text for text in reply.texts)
