"""Verdicts of one token, a rating or a choice: the label's probabilities as a server returns them, well and badly.

A label's probability is the sum over the spellings that differ in white space alone; what else there is does not count,
and where that is more than half of all, or where there are no probabilities, there is no verdict.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from oracle.reply import Reply, top

JUNK = ("The", "I", "Grade", "10", "45", "four", "[[", "better", "Both")
SORRY = "I'm sorry, but I can't help with grading this."


@dataclass(frozen=True, slots=True)
class Form:
    """A way to write a reply."""

    name: str
    readable: bool
    write: Callable[[dict[str, float], random.Random], Reply]
    on_labels: float = 1.0
    """Share of the probability that the labels have; a judge says how little it takes for a verdict."""


def _plain(shares: dict[str, float], chance: random.Random, off: float = 0.03) -> list[tuple[str, float]]:
    junk = chance.sample(JUNK, 3)
    rows = [(label, (1 - off) * share) for label, share in shares.items()]
    return [*rows, *((word, off * part) for word, part in zip(junk, (0.6, 0.3, 0.1), strict=True))]


def _best(shares: dict[str, float]) -> str:
    return max(shares, key=lambda label: shares[label])


def _said(shares: dict[str, float], rows: list[tuple[str, float]], text: str | None = None) -> Reply:
    return Reply([_best(shares) if text is None else text], "length", logprobs=top(rows))


def clean(shares: dict[str, float], chance: random.Random) -> Reply:
    return _said(shares, _plain(shares, chance))


def _spellings(shares: dict[str, float], chance: random.Random) -> Reply:
    rows = _plain(shares, chance)
    found: list[tuple[str, float]] = []
    for token, p in rows:
        if token not in shares:
            found.append((token, p))
            continue
        for i, spelling in enumerate((f" {token}", token, f"\n{token}", f"\u00a0{token}", f"{token} ")):
            found.append((spelling, p * (0.4, 0.3, 0.15, 0.1, 0.05)[i]))
    return _said(shares, found)


def _twice(shares: dict[str, float], chance: random.Random) -> Reply:
    """Two tokens that read alike, as tokenizers with a mark for a leading space have them."""
    rows = [(token, p * part) for token, p in _plain(shares, chance) for part in (0.7, 0.3)]
    return _said(shares, rows)


def _some_of(shares: dict[str, float], chance: random.Random, off: float) -> Reply:
    return _said(shares, _plain(shares, chance, off))


def _other_text(shares: dict[str, float], chance: random.Random) -> Reply:
    """The drawn token is not the likeliest; the distribution is what counts."""
    return _said(shares, _plain(shares, chance), chance.choice([*shares, "I"]))


def _without_text(shares: dict[str, float], chance: random.Random) -> Reply:
    reply = clean(shares, chance)
    reply.texts = [None]
    return reply


def _marked(shares: dict[str, float], chance: random.Random) -> Reply:
    return _said(shares, _plain(shares, chance), _best(shares) + "<|im_end|>")


def _without_logprobs(shares: dict[str, float], chance: random.Random) -> Reply:
    return Reply([_best(shares)], "length")


def _with(content: list[dict[str, object]] | None) -> Callable[[dict[str, float], random.Random], Reply]:
    return lambda shares, chance: Reply([_best(shares)], "length", logprobs={"content": content})


def _null_logprobs(shares: dict[str, float], chance: random.Random) -> Reply:
    reply = clean(shares, chance)
    assert reply.logprobs is not None
    for row in reply.logprobs["content"][0]["top_logprobs"]:
        row["logprob"] = None
    return reply


def _too_much(shares: dict[str, float], chance: random.Random) -> Reply:
    """Probabilities that sum to more than one are none."""
    return _said(shares, [(token, 1.8 * p) for token, p in _plain(shares, chance)])


def _thinking(shares: dict[str, float], chance: random.Random) -> Reply:
    return _said(shares, [("<think>", 0.98), *((t, 0.02 * p) for t, p in _plain(shares, chance))], "<think>")


def _line_first(shares: dict[str, float], chance: random.Random) -> Reply:
    return _said(shares, [("\n", 0.9), *((t, 0.1 * p) for t, p in _plain(shares, chance))], "\n")


def _filtered(shares: dict[str, float], chance: random.Random) -> Reply:
    reply = clean(shares, chance)
    reply.finish_reason = "content_filter"
    return reply


def _declined(shares: dict[str, float], chance: random.Random) -> Reply:
    reply = clean(shares, chance)
    reply.texts, reply.refusal, reply.finish_reason = [None], SORRY, "stop"
    return reply


MALFORMED = (
    Form("white space around labels", True, _spellings),
    Form("two tokens that read alike", True, _twice),
    Form("a third off the scale", True, lambda s, c: _some_of(s, c, 0.35), 0.65),
    Form("another token was drawn", True, _other_text),
    Form("no text", True, _without_text),
    Form("a chat marker in the text", True, _marked),
    Form("two thirds off the scale", True, lambda s, c: _some_of(s, c, 0.65), 0.35),
    Form("all off the scale", False, lambda s, c: _some_of(s, c, 1.0)),
    Form("no log-probabilities", False, _without_logprobs),
    Form("no tokens", False, _with([])),
    Form("tokens are null", False, _with(None)),
    Form("no alternatives", False, _with([{"token": "5", "logprob": 0.0, "top_logprobs": []}])),
    Form("log-probabilities are null", False, _null_logprobs),
    Form("more than all probability", False, _too_much),
    Form("an empty line first", False, _line_first),
)
TRUNCATED = (
    Form("cut while thinking", False, _thinking),
    Form("cut before the first token", False, lambda s, c: Reply([""], "length")),
    Form("cut, text null", False, lambda s, c: Reply([None], "length", reasoning="Let me see")),
)
REFUSED = (
    Form(
        "refused in words",
        False,
        lambda s, c: Reply(["I"], "length", logprobs=top([("I", 0.97), ("Sorry", 0.02)])),
    ),
    Form("refusal field", False, _declined),
    Form("content filter", False, _filtered),
)


def drawn(shares: dict[str, float], n: int) -> list[str]:
    """`n` labels whose shares are as near to `shares` as whole numbers allow."""
    counts = {label: int(share * n) for label, share in shares.items()}
    rest = sorted(shares, key=lambda label: counts[label] - shares[label] * n)
    for label in rest[: n - sum(counts.values())]:
        counts[label] += 1
    return [label for label, count in counts.items() for _ in range(count)]


DRESSED = (
    "{v}",
    " {v}",
    "{v}.",
    "{v}\n",
    "**{v}**",
    "[[{v}]]",
    '"{v}"',
    "({v})",
    "`{v}`",
    "\u00a0{v}",
    "{v}<|im_end|>",
)
"""One label and nothing else, as far as a reader is concerned."""
NO_LABEL = (
    "",
    "I",
    "{v} or {w}",
    "{v}{w}",
    "[[{w}]] no {v}",
    "{v}.5{w}",
    "not {v}",
    "X",
    "{v}, {w}",
    "0{v}0",
)
"""No label, or more than one."""


def samples(
    labels: list[str], spoilt: int, others: tuple[str, ...], chance: random.Random
) -> list[str | None]:
    """Answers of a label each, dressed up; the last `spoilt` of them say none."""
    kept = len(labels) - spoilt
    texts: list[str | None] = [chance.choice(DRESSED).replace("{v}", label) for label in labels[:kept]]
    for label in labels[kept:]:
        other = chance.choice([one for one in others if one != label])
        texts.append(chance.choice(NO_LABEL).replace("{v}", label).replace("{w}", other))
    return texts
