"""Texts that share most of their words in a row: MinHash and its index by bands finds them, an exact count confirms.

A text is the set of its runs of three words (case and punctuation do not count); two are near when they share at least
`threshold` of the runs that either has (Jaccard). 128 minima of a text's runs, hashed 128 ways, agree with that share;
cut into bands, texts that agree in a whole band are compared (Broder 1997; Leskovec et al., Mining of Massive Datasets,
section 3.4). What is compared is counted exactly, so what is reported is near; bands are so chosen that at least 999 of
1000 pairs at the threshold meet. In numpy that is a few lines, and a tenth of a millisecond a text.
"""

import hashlib
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

import numpy as np

from pairs.texts import words

RUN = 3
"""Words in a row."""
HASHES = 128
CHUNK = 200
"""Texts whose runs are hashed together."""
MEET = 0.999
"""Chance that two texts at the threshold are compared."""


class Near(NamedTuple):
    """Two of the texts, by their places."""

    later: int
    earlier: int
    share: float
    """Runs they share, of those that either has."""


def near_duplicates(texts: Iterable[str], threshold: float = 0.7) -> list[Near]:
    """Each text that is near an earlier one that is itself kept, with that one; in the texts' order.

    Of several it is nearest to, the first. Texts of fewer than three words count as one run. Empty ones are left out.
    """
    if not 0 < threshold <= 1:
        raise ValueError(
            f"threshold={threshold}: a share of runs of words in common; wanted above 0, at most 1"
        )
    signatures, runs, starts = _read(texts)
    found: list[Near] = []
    gone: set[int] = set()
    pairs = _meeting(signatures, threshold)
    at = 0
    while at < len(pairs):  # by the later text, so who is kept is known of every earlier one
        later = int(pairs[at, 0])
        best = None
        while at < len(pairs) and pairs[at, 0] == later:
            earlier = int(pairs[at, 1])
            at += 1
            if earlier in gone:
                continue
            share = _share(
                runs[starts[later] : starts[later + 1]], runs[starts[earlier] : starts[earlier + 1]]
            )
            if share >= threshold and (best is None or share > best.share):
                best = Near(later, earlier, share)
        if best is not None:
            gone.add(later)
            found.append(best)
    return found


def bands_of(threshold: float) -> int:
    """Minima in a band: as many as may be for two texts at the threshold to meet in one of the bands."""
    fitting = [rows for rows in (16, 8, 4, 2, 1) if 1 - (1 - threshold**rows) ** (HASHES // rows) >= MEET]
    return fitting[0] if fitting else 1


class _Marks(dict[str, int]):
    """Word -> 32 bits that stand for it, the same in every process."""

    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4).digest()
        self[word] = mark = int.from_bytes(digest, "little")
        return mark


def _read(texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signatures, a row each; all runs as 32 bits, sorted within a text, each once; where each text's begin."""
    marks, source = _Marks(), iter(texts)
    dice = np.random.default_rng(0)
    factors = dice.integers(0, 2**32, HASHES, dtype=np.uint32) | np.uint32(1)
    flips = dice.integers(0, 2**32, HASHES, dtype=np.uint32)
    signatures, runs, sizes = [], [], []
    while chunk := list(islice(source, CHUNK)):
        own = [_runs([marks[word] for word in words(text)]) for text in chunk]
        lengths = np.array([len(each) for each in own])
        flat = np.concatenate(own)
        signature = np.full((len(own), HASHES), np.iinfo(np.uint32).max, np.uint32)
        if len(flat):
            filled, begins = lengths > 0, np.concatenate(([0], np.cumsum(lengths)[:-1]))
            hashed, begins = np.empty_like(flat), begins[filled]
            for i, (flip, factor) in enumerate(zip(flips, factors, strict=True)):
                np.multiply(np.bitwise_xor(flat, flip, out=hashed), factor, out=hashed)
                signature[filled, i] = np.minimum.reduceat(hashed, begins)
        signatures.append(signature)
        runs.append(flat)
        sizes.append(lengths)
    if not sizes:
        return np.empty((0, HASHES), np.uint32), np.empty(0, np.uint32), np.zeros(1, np.int64)
    return (
        np.concatenate(signatures),
        np.concatenate(runs),
        np.concatenate(([0], np.cumsum(np.concatenate(sizes)))),
    )


def _runs(found: list[int]) -> np.ndarray:
    marks = np.array(found, np.uint64)
    if len(marks) >= RUN:
        mixed = marks[: 1 - RUN] * np.uint64(0x9E3779B97F4A7C15)
        for i in range(1, RUN):
            mixed = (mixed ^ (mixed >> np.uint64(29)) ^ marks[i : len(marks) - RUN + 1 + i]) * np.uint64(
                0xBF58476D1CE4E5B9
            )
    else:
        mixed = np.array([hash(tuple(found))], np.int64).astype(np.uint64) if found else marks
    return np.unique((mixed >> np.uint64(32)).astype(np.uint32))


def _meeting(signatures: np.ndarray, threshold: float) -> np.ndarray:
    """Pairs (later, earlier) that agree in a band, each once, sorted. Of many in one band, each with the first and with
    the one before it: they are copies of one text."""
    rows = bands_of(threshold)
    empty = (signatures == np.iinfo(np.uint32).max).all(axis=1)
    places = np.flatnonzero(~empty)
    meeting = []
    for band in range(HASHES // rows):
        keys = np.ascontiguousarray(signatures[places, band * rows : (band + 1) * rows])
        keys = keys.view(np.dtype((np.void, keys.dtype.itemsize * rows))).ravel()
        order = np.argsort(keys, kind="stable")
        ordered = places[order]
        same = keys[order][1:] == keys[order][:-1]
        first = np.maximum.accumulate(np.where(np.append(False, same), 0, np.arange(len(ordered))))
        later = np.flatnonzero(np.append(False, same))
        meeting.append(np.stack([ordered[later], ordered[first[later]]], axis=1))
        meeting.append(np.stack([ordered[later], ordered[later - 1]], axis=1))
    return np.unique(np.concatenate(meeting), axis=0) if meeting else np.empty((0, 2), np.int64)


def _share(one: np.ndarray, other: np.ndarray) -> float:
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)
