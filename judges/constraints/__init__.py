"""Constraints a machine can check, as a prompt's `meta["constraints"]` writes them: {kind: max_words, n: 25}.

`grade` says whether a text keeps one and how nearly: what is broken gets at most 0.5, and less the further it is
off, so an answer of 200 words ranks below one of 26 where 25 were asked for. Instructions of IFEval are these
constraints too, see `prompts/ifeval.py`.
"""

from typing import Annotated

from pydantic import Field, TypeAdapter

from judges.constraints.answer import NumberAnswer, final_number, read_number
from judges.constraints.form import (
    BulletList,
    EndsWith,
    EndsWithPunctuation,
    Highlights,
    Json,
    JsonObject,
    NumberedList,
    OneOf,
    Placeholders,
    Postscript,
    Quoted,
    Responses,
    Sections,
    StartsWith,
    Title,
)
from judges.constraints.length import (
    MaxSentences,
    MaxWords,
    MinSentences,
    MinWords,
    Paragraphs,
    ParagraphStarts,
    SingleParagraph,
    count_sentences,
    count_words,
)
from judges.constraints.rule import NoAnswer, loosely
from judges.constraints.wording import (
    CapitalWords,
    Contains,
    Excludes,
    Language,
    LetterCount,
    Lowercase,
    PhraseCount,
    Uppercase,
)

Constraint = Annotated[
    MaxWords
    | MinWords
    | MaxSentences
    | MinSentences
    | Paragraphs
    | SingleParagraph
    | ParagraphStarts
    | Contains
    | Excludes
    | PhraseCount
    | LetterCount
    | CapitalWords
    | Lowercase
    | Uppercase
    | Language
    | BulletList
    | NumberedList
    | Json
    | JsonObject
    | Title
    | Highlights
    | Sections
    | Placeholders
    | Postscript
    | Responses
    | OneOf
    | StartsWith
    | EndsWith
    | EndsWithPunctuation
    | Quoted
    | NumberAnswer,
    Field(discriminator="kind"),
]
CONSTRAINT: TypeAdapter[Constraint] = TypeAdapter(Constraint)

__all__ = [
    "CONSTRAINT",
    "Constraint",
    "NoAnswer",
    "NumberAnswer",
    "count_sentences",
    "count_words",
    "final_number",
    "loosely",
    "read_number",
]
