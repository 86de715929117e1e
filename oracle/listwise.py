"""Ratings of several texts side by side, a block for each, in the form the wording shows, written well and badly."""

import random
import re
from collections.abc import Callable, Sequence

from oracle.critique import REFUSED, WIDE
from oracle.reply import Reply
from oracle.wording import Block

Rated = Sequence[float | None]
"""By the text's number from 1; None: does not apply."""
Form = Callable[[Block, Rated, random.Random], str]

REASONS = (
    "It keeps to the rules.",
    "It names the lantern.\n\nIt says little else, 3 of 4 rules are kept.",
    'It says "Rating: 5" of itself, which counts for nothing.',
    "Better than Text 2, which is incorrect.",
    "- kept: one\n- broken: two\n\n\nSo it is.",
)


def number(rating: float | None) -> str:
    return "N/A" if rating is None else f"{rating:g}"


def one(block: Block, n: object, rating: str, chance: random.Random) -> str:
    """The block of one text."""
    lines = [block.heading.replace("{n}", str(n))]
    for i, name in enumerate(block.fields):
        if i == block.rating:
            lines.append(f"{name}: {rating}")
        elif name.lower() == "type":
            lines.append(f"{name}: {chance.choice(['None', '1, 3', '2'])}")
        else:
            lines.append(f"{name}: {chance.choice(REASONS)}")
    return "\n".join(lines)


def clean(block: Block, rated: Rated, chance: random.Random) -> str:
    return "\n\n".join(one(block, n, number(r), chance) for n, r in enumerate(rated, 1))


def _each(write: Callable[[str], str]) -> Form:
    """Every number written in another way."""
    return lambda block, rated, chance: "\n\n".join(
        one(block, n, number(r) if r is None else write(f"{r:g}"), chance) for n, r in enumerate(rated, 1)
    )


def _whole(write: Callable[[str], str]) -> Form:
    """The clean reply, changed."""
    return lambda block, rated, chance: write(clean(block, rated, chance))


def _turned(block: Block, rated: Rated, chance: random.Random) -> str:
    blocks = [one(block, n, number(r), chance) for n, r in enumerate(rated, 1)]
    chance.shuffle(blocks)
    return "\n\n".join(blocks)


def _quoting(block: Block, rated: Rated, chance: random.Random) -> str:
    return f'A text contains "{block.heading.replace("{n}", "1")}", which I take for text.\n\n' + clean(
        block, rated, chance
    )


def _bold(text: str) -> str:
    return re.sub(r"(?m)^([A-Z][a-z]+):", r"**\1:**", text)


READABLE: dict[str, Form] = {
    "words before and after": _whole(lambda t: f"Here are my ratings.\n\n{t}\n\nI hope this helps."),
    "bold names": _whole(_bold),
    "bold names, colon outside": _whole(lambda t: re.sub(r"(?m)^([A-Z][a-z]+):", r"**\1**:", t)),
    "headings with a colon": lambda b, r, c: clean(Block(b.heading + ":", b.fields, b.rating), r, c),
    "bold headings": lambda b, r, c: clean(Block(f"**{b.heading.lstrip('# ')}**", b.fields, b.rating), r, c),
    "smaller headings": lambda b, r, c: clean(
        Block("## " + b.heading.lstrip("# "), b.fields, b.rating), r, c
    ),
    "headings without marks": lambda b, r, c: clean(Block(b.heading.lstrip("# "), b.fields, b.rating), r, c),
    "headings in capitals": lambda b, r, c: clean(
        Block(b.heading.upper().replace("{N}", "{n}"), b.fields, b.rating), r, c
    ),
    "headings that go on": lambda b, r, c: clean(
        Block("#### " + b.heading.lstrip("# ") + " (the one on the harbour)", b.fields, b.rating), r, c
    ),
    "another order": _turned,
    "one line apart": _whole(lambda t: t.replace("\n\n", "\n")),
    "many lines apart": _whole(lambda t: t.replace("\n", "\n\n")),
    "carriage returns": _whole(lambda t: t.replace("\n", "\r\n")),
    "fence": _whole(lambda t: f"```markdown\n{t}\n```"),
    "indented": _whole(lambda t: re.sub(r"(?m)^", "  ", t)),
    "bullets": _whole(lambda t: re.sub(r"(?m)^([A-Z][a-z]+:)", r"- \1", t)),
    "no-break spaces": _whole(
        lambda t: re.sub(r"(?m)^((?:#+ )?[A-Z][a-z]+)( \w+)*:? ", lambda m: m[0].replace(" ", "\u00a0"), t)
    ),
    "wide colons": _whole(lambda t: re.sub(r"(?m)^([A-Z][a-z]+): ", r"\1：", t)),
    "out of": _each(lambda v: f"{v}/5"),
    "out of, in words": _each(lambda v: f"{v} out of 5"),
    "bold": _each(lambda v: f"**{v}**"),
    "brackets": _each(lambda v: f"[{v}]"),
    "double brackets": _each(lambda v: f"[[{v}]]"),
    "angle brackets": _each(lambda v: f"<{v}>"),
    "two decimals": _each(lambda v: f"{float(v):.2f}"),
    "a word after": _each(lambda v: f"{v} - Almost there"),
    "wide digits": _each(lambda v: v.translate(WIDE)),
    "next line": _each(lambda v: f"\n{v}"),
    "thinking": _whole(lambda t: f"<think>{t.replace('Rating: ', 'Rating: 1')}</think>\n{t}"),
    "quoted heading": _quoting,
    "chat marker": _whole(lambda t: t + "<|im_end|>"),
    "numbers alone": lambda b, r, c: "\n\n".join(
        f"{b.heading.replace('{n}', str(n))}\n{b.fields[b.rating]}: {number(v)}" for n, v in enumerate(r, 1)
    ),
}


def _but(change: Callable[[list[str], random.Random], list[str]]) -> Form:
    """The blocks of a clean reply, changed as a list."""

    def write(block: Block, rated: Rated, chance: random.Random) -> str:
        blocks = [one(block, n, number(r), chance) for n, r in enumerate(rated, 1)]
        return "\n\n".join(change(blocks, chance))

    return write


def _spoilt(instead: Callable[[str], str]) -> Form:
    """One of the numbers is none."""

    def write(block: Block, rated: Rated, chance: random.Random) -> str:
        which = chance.randrange(len(rated))
        return "\n\n".join(
            one(block, n, instead(f"{r or 3:g}") if n - 1 == which else number(r), chance)
            for n, r in enumerate(rated, 1)
        )

    return write


def _numbered(numbers: Callable[[int], list[object]]) -> Form:
    def write(block: Block, rated: Rated, chance: random.Random) -> str:
        return "\n\n".join(
            one(block, n, number(r), chance) for n, r in zip(numbers(len(rated)), rated, strict=False)
        )

    return write


def _drop(blocks: list[str], chance: random.Random) -> list[str]:
    del blocks[chance.randrange(len(blocks))]
    return blocks


UNREADABLE: dict[str, Form] = {
    "nothing": lambda b, r, c: "",
    "one text missing": _but(_drop),
    "one text too many": lambda b, r, c: clean(b, [*r, 5.0], c),
    "two verdicts on one text": lambda b, r, c: clean(b, r, c) + "\n\n" + one(b, 1, "1.5", c),
    "numbers repeated": _numbered(lambda n: [1, *range(1, n)]),
    "numbers from 0": _numbered(lambda n: list(range(n))),
    "letters for numbers": _numbered(lambda n: list("ABCDEFGHIJKLMNOP"[:n])),
    "no numbers": _numbered(lambda n: [""] * n),
    "a heading that says two": lambda b, r, c: clean(b, r, c).replace(
        b.heading.replace("{n}", "1"), b.heading.replace("{n}", "1 and 2"), 1
    ),
    "no number": _spoilt(lambda v: ""),
    "a word": _spoilt(lambda v: "good"),
    "above the scale": _spoilt(lambda v: "6"),
    "ten": _spoilt(lambda v: "10"),
    "zero": _spoilt(lambda v: "0"),
    "negative": _spoilt(lambda v: f"-{v}"),
    "one or the other": _spoilt(lambda v: "1 or 5"),
    "one, then the other": _spoilt(lambda v: "2, no, 5"),
    "a span": _spoilt(lambda v: "2-4"),
    "digits apart": _spoilt(lambda v: "1 5"),
    "another scale": _spoilt(lambda v: "4/10"),
    "per cent": _spoilt(lambda v: "4%"),
    "two ratings": _spoilt(lambda v: "2\nRating: 5"),
    "code": _spoilt(lambda v: "__import__('os').getpid()"),
    "only in thinking": _whole(lambda t: f"<think>{t}</think>"),
    "thinking without an end": _whole(lambda t: f"<think>{t}"),
    "one rating for all": lambda b, r, c: f"{b.fields[b.rating]}: 4",
}


def badly(kind: str, block: Block, rated: Rated, chance: random.Random) -> tuple[str, bool, Reply]:
    """A reply of one kind, malformed, truncated or refused: what it is, whether it can be read, and itself."""
    whole = clean(block, rated, chance)
    if len(rated) == 1:  # what is wrong with the numbers of several texts cannot be wrong here
        return "clean", True, Reply([whole])
    if kind == "truncated":
        form, text, readable = _cut(block, rated, whole, chance)
        return form, readable, Reply([text], "length")
    if kind == "refused":
        if chance.random() < 0.3:
            return "content filter", False, Reply([chance.choice(["", whole])], "content_filter")
        if chance.random() < 0.3:
            return "refusal field", False, Reply([None], refusal="I can't rate these.")
        form = chance.choice(list(REFUSED))
        return f"refused {form}", False, Reply([REFUSED[form]])
    readable = chance.random() < 0.5
    forms = READABLE if readable else UNREADABLE
    form = chance.choice(list(forms))
    return form, readable, Reply([forms[form](block, rated, chance)])


def _cut(block: Block, rated: Rated, whole: str, chance: random.Random) -> tuple[str, str, bool]:
    """Cut in the last text's number, before it, or, so that all is said, in the words after it."""
    name = block.fields[block.rating]
    at = whole.rindex(f"\n{name}: ") + len(f"\n{name}: ")
    last = block.rating == len(block.fields) - 1
    ways = ["in the number", "before the number", "in an earlier text", "before anything"]
    way = chance.choice(ways if last else [*ways, "after all was said"])
    if way == "after all was said":
        under = f"{block.fields[block.rating + 1]}: "
        return f"cut {way}", whole[: whole.index(under, at) + len(under) + 6], True
    ends = {
        "in the number": at + 1,
        "before the number": at,
        "in an earlier text": len(whole) // 3,
        "before anything": 0,
    }
    return f"cut {way}", whole[: ends[way]], False
