"""Which prompts are left out before anything is asked: those of benchmarks, and near copies of others."""

from collections import Counter
from collections.abc import Callable, Iterable

from pydantic import Field

from pairs.decontaminate import Benchmarks
from pairs.texts import asked
from prompts.benchmarks import BenchmarkList
from records.base import Strict
from records.schema import Dropped, Prompt

STAGE = "prompts"


class Cleaning(Strict):
    """Left out before anything is asked, and listed in the dataset's card."""

    benchmarks: tuple[BenchmarkList, ...] = ()
    """Prompts of these are dropped as `contaminated`: the same text but for case and punctuation, or `ngram` words in a
    row that one of theirs has."""
    ngram: int = Field(default=13, ge=2)
    """Words in a row that count. UltraFeedback and GPT-3: 13."""
    near_duplicates: float | None = Field(default=None, gt=0, le=1)
    """Of two prompts that share this much of their runs of three words, the later is dropped as `near_duplicate`; at
    0.7, one word in sixteen may be another. None keeps them."""

    @property
    def does_something(self) -> bool:
        return bool(self.benchmarks) or self.near_duplicates is not None


def cleaned(settings: Cleaning, dropped: Iterable[Dropped]) -> dict[str, int]:
    """What was looked for -> prompts left out, for the card; also what was looked for and not found."""
    dropped = list(dropped)
    names = Counter(drop.detail.split(", ")[0] for drop in dropped if drop.reason == "contaminated")
    found = {
        f"{each.name}: the same text, or {settings.ngram} words in a row": names[each.name]
        for each in settings.benchmarks
    }
    if settings.near_duplicates is not None:
        what = f"near copies ({settings.near_duplicates:g} or more of the runs of three words)"
        found[what] = sum(drop.reason == "near_duplicate" for drop in dropped)
    return found


def to_drop(prompts: Callable[[], Iterable[Prompt]], settings: Cleaning) -> dict[str, Dropped]:
    """Prompt id -> why it is left out. `prompts` is called once for each kind of check: texts do not stay in memory,
    only the hashes of their words.

    Raises:
        PromptError: a benchmark's list cannot be read.
    """
    found: dict[str, Dropped] = {}
    if settings.benchmarks:
        benchmarks = Benchmarks({each.name: each.texts() for each in settings.benchmarks}, settings.ngram)
        for prompt in prompts():
            hit = benchmarks.find(prompt.id, asked(prompt))
            if hit is not None:
                detail = f"{hit.benchmark}, {hit.kind}: {hit.text}"
                found[prompt.id] = Dropped(id=prompt.id, stage=STAGE, reason="contaminated", detail=detail)
    if settings.near_duplicates is not None:
        from pairs.near import near_duplicates

        ids: list[str] = []

        def texts() -> Iterable[str]:
            for prompt in prompts():
                if prompt.id not in found:
                    ids.append(prompt.id)
                    yield asked(prompt)

        for later, earlier, share in near_duplicates(texts(), settings.near_duplicates):
            detail = f"{share:.2f} of {ids[earlier]}"
            found[ids[later]] = Dropped(id=ids[later], stage=STAGE, reason="near_duplicate", detail=detail)
    return found
