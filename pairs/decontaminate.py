"""Prompts that a benchmark holds: the same text, or 13 words in a row (GPT-3, arXiv 2005.14165, appendix C).

Case and punctuation do not count. Languages written without spaces between words get the exact comparison
only. About 6 s for 200 000 prompts of 150 words: a run of 13 words always holds a block of 7 that starts at a
multiple of 7, so only those blocks are looked up, and their surroundings only on a hit.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from pairs.texts import asked, normalised, squeezed, words
from records.base import Strict
from records.schema import Prompt


class Hit(Strict):
    """A prompt that a benchmark holds."""

    prompt_id: str
    benchmark: str
    kind: Literal["exact", "ngram"]
    text: str
    """What they have in common, at most 120 characters."""


class Benchmarks:
    """Texts no training prompt may hold, by name: `Benchmarks({"mt_bench": [...], "alpaca_eval": [...]})`."""

    def __init__(self, texts: Mapping[str, Iterable[str]], n: int = 13) -> None:
        if n < 2:
            raise ValueError(f"n={n}: words in a row that count as contamination; wanted 2 or more")
        self.n = n
        self._block = (n + 1) // 2
        self._exact: dict[str, str] = {}
        self._ngrams: dict[str, str] = {}
        self._blocks: set[str] = set()
        for name, lines in texts.items():
            for line in lines:
                if whole := normalised(line):
                    self._exact.setdefault(whole, name)
                found = words(line)
                for i in range(len(found) - n + 1):
                    self._ngrams.setdefault(" ".join(found[i : i + n]), name)
                if len(found) >= n:
                    size = self._block
                    self._blocks.update(" ".join(found[j : j + size]) for j in range(len(found) - size + 1))

    def find(self, prompt_id: str, text: str) -> Hit | None:
        """The first thing `text` has in common with a benchmark."""
        found = words(text)
        whole = " ".join(found) or squeezed(text)
        if name := self._exact.get(whole):
            return Hit(prompt_id=prompt_id, benchmark=name, kind="exact", text=whole[:120])
        if not self._ngrams:
            return None
        n, size = self.n, self._block
        for j in range(0, len(found) - size + 1, size):
            if " ".join(found[j : j + size]) not in self._blocks:
                continue
            for i in range(max(0, j + size - n), min(j, len(found) - n) + 1):
                ngram = " ".join(found[i : i + n])
                if name := self._ngrams.get(ngram):
                    return Hit(prompt_id=prompt_id, benchmark=name, kind="ngram", text=ngram[:120])
        return None

    def hits(self, prompts: Iterable[Prompt]) -> list[Hit]:
        found = (self.find(prompt.id, asked(prompt)) for prompt in prompts)
        return [hit for hit in found if hit]
