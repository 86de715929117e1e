"""Constraints on wording: what a text says, leaves out, and how often; the language it is in."""

import re
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from judges.constraints.rule import Counted, Found, Rule

Phrase = Annotated[str, Field(min_length=1)]


def occurrences(phrase: str, text: str, whole_words: bool = True) -> int:
    """How often a text has a phrase, in any case; `tea` is in `team` only where parts of words count."""
    pattern = re.escape(phrase)
    return len(re.findall(rf"(?<!\w){pattern}(?!\w)" if whole_words else pattern, text, re.IGNORECASE))


class _Phrases(Rule):
    phrases: tuple[Phrase, ...] = Field(min_length=1)
    whole_words: bool = True
    """False: parts of words count, and so does punctuation beside a letter."""

    def _present(self, text: str) -> list[str]:
        return [phrase for phrase in self.phrases if occurrences(phrase, text, self.whole_words)]


class Contains(_Phrases):
    kind: Literal["contains"]

    def find(self, text: str) -> Found:
        have = self._present(text)
        return Found(len(have) == len(self.phrases), len(have) / len(self.phrases), f"it has {have}")

    def describe(self) -> str:
        return f"contains {', '.join(map(repr, self.phrases))}"


class Excludes(_Phrases):
    kind: Literal["excludes"]

    def find(self, text: str) -> Found:
        have = self._present(text)
        return Found(not have, 1 - len(have) / len(self.phrases), f"it has {have}")

    def describe(self) -> str:
        return f"leaves out {', '.join(map(repr, self.phrases))}"


class PhraseCount(Counted):
    kind: Literal["phrase_count"]
    phrase: Phrase
    whole_words: bool = True
    """False: parts of words count."""

    def find(self, text: str) -> Found:
        return self.count(occurrences(self.phrase, text, self.whole_words), f"{self.phrase!r}")

    def describe(self) -> str:
        return self.wanted(f"{self.phrase!r}")


class LetterCount(Counted):
    """Any one character, in either case."""

    kind: Literal["letter_count"]
    letter: str = Field(min_length=1, max_length=1)

    def find(self, text: str) -> Found:
        return self.count(text.lower().count(self.letter.lower()), f"{self.letter!r}")

    def describe(self) -> str:
        return self.wanted(f"{self.letter!r}")


@lru_cache(1)
def _profiles() -> Any:
    from langdetect import detector_factory

    factory = detector_factory.DetectorFactory()
    factory.load_profile(detector_factory.PROFILES_DIRECTORY)
    factory.set_seed(0)
    return factory


def languages() -> list[str]:
    """Codes of the languages that can be told apart: ISO 639-1, and zh-cn and zh-tw."""
    return sorted(_profiles().get_lang_list())


def language_of(text: str) -> str | None:
    """The code of the language a text is most likely in; None for a text without letters. The same every time."""
    from langdetect.lang_detect_exception import LangDetectException

    detector = _profiles().create()
    detector.append(text)
    try:
        return detector.detect()
    except LangDetectException:
        return None


class Language(Rule):
    kind: Literal["language"]
    language: str
    """Its code: `de`, `hi`, `zh-cn`."""

    @field_validator("language")
    @classmethod
    def _known(cls, code: str) -> str:
        if code not in languages():
            raise ValueError(
                f"{code!r} cannot be told from other languages; wanted one of {', '.join(languages())}"
            )
        return code

    def find(self, text: str) -> Found:
        found = language_of(text)
        return Found(found == self.language, 0.0, f"language {found or 'unknown'}")

    def describe(self) -> str:
        return f"in the language {self.language!r}"


class _Case(Rule):
    language: str | None = None
    """Also in this language, such as `en`."""

    _known = field_validator("language")(
        lambda code: code and Language(kind="language", language=code).language
    )

    def _judged(self, text: str, kept: bool, right: str) -> Found:
        pairs = [(a, b) for a, b in zip(text, right, strict=False) if a.isalpha()]
        near = sum(a == b for a, b in pairs) / max(len(pairs), 1)
        if kept and self.language is not None and (found := language_of(text)) != self.language:
            return Found(False, near, f"language {found or 'unknown'}")
        return Found(kept, near, f"{near:.0%} of its letters")

    def _described(self, case: str) -> str:
        return f"all in {case}" + (f", in the language {self.language!r}" if self.language else "")


class Lowercase(_Case):
    kind: Literal["lowercase"]

    def find(self, text: str) -> Found:
        return self._judged(text, text.islower(), text.lower())

    def describe(self) -> str:
        return self._described("lower case")


class Uppercase(_Case):
    kind: Literal["uppercase"]

    def find(self, text: str) -> Found:
        return self._judged(text, text.isupper(), text.upper())

    def describe(self) -> str:
        return self._described("capitals")


class CapitalWords(Counted):
    """Words all in capitals; `U.S.`, `E-MAIL` and `I` are one each."""

    kind: Literal["capital_words"]

    def find(self, text: str) -> Found:
        words = re.findall(r"\w+(?:[-./&]\w+)*", text)
        return self.count(sum(word.isupper() for word in words), "word in capitals")

    def describe(self) -> str:
        return self.wanted("word in capitals")
