"""Which keys a folder answers and in which of its files: twelve bytes a key, however long the answers are."""

from collections.abc import Iterable, Sequence

import numpy as np


class Held:
    """Built once from all files of a folder. Of a key in several files, the last file counts.

    Keys are told apart by 64 bits of their hash, so a file is a place to look for a key, and its rows decide.
    """

    def __init__(self, files: Iterable[tuple[str, Sequence[str]]]) -> None:
        self._names: list[str] = []
        marks, places = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
        for name, keys in files:
            marks.append(_marks(keys))
            places.append(np.full(len(keys), len(self._names), np.int32))
            self._names.append(name)
        every = np.concatenate(marks)
        order = np.argsort(every, kind="stable")
        every = every[order]
        last = np.append(every[1:] != every[:-1], True)[: len(every)]
        self._marks, self._places = every[last], np.concatenate(places)[order][last]

    def __len__(self) -> int:
        return len(self._marks)

    def __contains__(self, key: str) -> bool:
        return bool(self.files_of([key]))

    def files_of(self, keys: Sequence[str]) -> dict[str, list[str]]:
        """The held ones of `keys`, by the file to look in."""
        found: dict[str, list[str]] = {}
        if len(self._marks) and keys:
            marks = _marks(keys)
            at = np.minimum(np.searchsorted(self._marks, marks), len(self._marks) - 1)
            places = self._places[at].tolist()
            for key, place, same in zip(keys, places, (self._marks[at] == marks).tolist(), strict=True):
                if same:
                    found.setdefault(self._names[place], []).append(key)
        return found

    def renamed(self, old: str, new: str) -> None:
        self._names = [new if name == old else name for name in self._names]


def _marks(keys: Sequence[str]) -> "np.ndarray":
    return np.fromiter(map(hash, keys), np.int64, len(keys))
