"""UltraChat's filters as named steps: how ultrachat_200k was made from UltraChat, as far as that is published.

    truecase    `Hello. how are you?` -> `Hello. How are you?`   about 5 % of the dialogues, says the dataset's card
    refusals    drops a dialogue whose assistant says, say, "I do not have emotions"

Zephyr (arXiv 2310.16944, section 4.1) and the card of HuggingFaceH4/ultrachat_200k name the steps. Its phrase list, its
truecaser and which dialogues it took were never published: the list here is prompts/ultrachat/refusals.txt, our own.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

from prompts.load import ROOT

Turns = list[dict[str, str]]
Filter = Literal["truecase", "refusals"]

_SENTENCE = re.compile(r"(^|[.!?]\s+)([a-z])(?=[a-z']*\b(?!\.[a-z]))")
_I = re.compile(r"\bi(?=\s|'(?:m|ve|d|ll)\b)")


def truecase(turns: Turns) -> Turns:
    """Sentences begin with a capital and `i` is `I`. Code, lists and text after `e.g.` stay as they are."""
    return [turn | {"content": _truecased(turn["content"])} for turn in turns]


def refusals(turns: Turns) -> Turns | None:
    """The dialogue, or None where an assistant's turn has one of the phrases."""
    said = _phrases()
    wrong = any(turn["role"] == "assistant" and said.search(_plain(turn["content"])) for turn in turns)
    return None if wrong else turns


FILTERS: dict[Filter, Callable[[Turns], Turns | None]] = {"truecase": truecase, "refusals": refusals}


def apply(filters: Sequence[Filter], turns: Turns, counts: dict[str, dict[str, int]]) -> Turns | None:
    """The dialogue after the filters, None where one dropped it. `counts`: filter -> in, changed, dropped."""
    for name in filters:
        own = counts.setdefault(name, {"in": 0, "changed": 0, "dropped": 0})
        own["in"] += 1
        after = FILTERS[name](turns)
        if after is None:
            own["dropped"] += 1
            return None
        own["changed"] += after != turns
        turns = after
    return turns


def _truecased(text: str) -> str:
    parts = text.split("```")
    for i in range(0, len(parts), 2):  # the others are code
        lines = parts[i].split("\n")
        parts[i] = "\n".join(line if _is_code(line) else _line(line) for line in lines)
    return "```".join(parts)


def _line(line: str) -> str:
    def capital(match: re.Match[str]) -> str:
        before = line[: match.start()].rsplit(None, 1)
        if (
            match[1].startswith(".")
            and before
            and re.search(r"\b(?:e\.g|i\.e|etc|vs|cf|no|fig)$", before[-1])
        ):
            return match[0]
        return match[1] + match[2].upper()

    return _I.sub("I", _SENTENCE.sub(capital, line))


def _is_code(line: str) -> bool:
    return line.startswith(("    ", "\t")) or bool(
        re.search(r"[{};=<>]|\w\(|://|^\S+@\S+|^[a-z]+\.[a-z]", line)
    )


@cache
def _phrases() -> re.Pattern[str]:
    lines = (ROOT / "ultrachat" / "refusals.txt").read_text(encoding="utf-8").splitlines()
    phrases = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return re.compile("|".join(rf"\b{re.escape(_plain(phrase))}\b" for phrase in phrases))


def _plain(text: str) -> str:
    """Lower case, one kind of apostrophe, `do not` for `don't`: so that a phrase stands in the list once."""
    text = text.lower().replace("\u2019", "'")
    for short, long in (("don't", "do not"), ("i'm", "i am"), ("can't", "cannot"), ("n't", " not")):
        text = text.replace(short, long)
    return " ".join(text.split())
