"""What a published preference dataset holds besides preferences: its defects, and what pairing anew changes.

One pass over the rows for their own defects (`pairs.audit_checks`), one over the prompts for near copies. Counts, ids,
a few examples and the prompts stay in memory; answers do not.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from pydantic import Field

from pairs.audit_checks import Choice, check, choice
from pairs.candidates import EQUAL
from pairs.cleaning import Cleaning
from pairs.decontaminate import Benchmarks
from pairs.texts import normalised
from prompts.annotations import OVERALL
from prompts.published import UNKNOWN, Entry
from records.base import Strict
from records.stats import Rate, clustered

EXAMPLES = 5

FINDINGS: dict[str, tuple[str, str]] = {
    "wrong_ten": (
        "A 10 that is a 1",
        "scored as the critique says, else 1; the row's choice changes where it was the best",
    ),
    "doubtful_ten": ("A 10 that may be a 1", "has no score until another judge gives one"),
    "unchecked_ten": ("A 10 that nothing can check", "stays 10"),
    "other_score_in_critique": ("The critique's text gives another score", "stays; judge it again"),
    "shifted_ratings": ("Ratings of an aspect at wrong places", "none of the row's ratings of it counts"),
    "blank_line": ("A rationale with a blank line, and no harm seen", "stays"),
    "missing_rating": ("No rating of an aspect", "the answer is in no pair by the mean of the aspects"),
    "missing_score": ("No overall score", "the answer is in no pair by overall score"),
    "other_mean": ("The stored mean is not that of the ratings", "the ratings count"),
    "off_scale": ("A score off the scale", "has no score"),
    "mixed_scales": ("Scores of a source on another scale than the rest", "look at them before pairing"),
    "tie_at_top": ("Several answers share the best score, list order decided", "drawn by seed and prompt id"),
    "tie": ("Chosen and rejected have the same score", "no pair"),
    "reversed": ("The rejected has the higher score", "the other way round"),
    "chosen_is_rejected": ("Chosen and rejected are the same text", "no pair"),
    "same_answers": ("Two answers of a row are the same text", "never a pair of each other"),
    "empty_answer": ("An answer without text", "in no pair"),
    "refusal": ("An answer that declines", "stays; right for some prompts"),
    "refusal_chosen": ("The best declines and another answer does not", "stays; judge it again"),
    "contaminated": ("A prompt of a benchmark", "left out with `cleaning`, a whole source with `where`"),
    "duplicate": ("A prompt that was there before", "the first row counts"),
    "near_duplicate": ("Nearly a prompt that was there before", "left out with `cleaning`"),
    "split_overlap": ("A prompt in train and in test", "the first row counts; drawn splits have none"),
}
"""Finding -> what it is, and what `zephyr import` and `zephyr pairs` make of it."""


class Example(Strict):
    where: str
    prompt_id: str
    answer: int | None
    """Its place in the row, from 0."""
    model: str
    detail: str


class Finding(Strict):
    name: str
    title: str
    effect: str
    """What pairing anew makes of it."""
    count: int
    rows: int
    """Different rows among them."""
    ids: tuple[str, ...]
    """The prompts, each once, in the dataset's order."""
    examples: tuple[Example, ...]


class Repaired(Strict):
    """Rows by what choosing anew changes, against the published choice: the first of the best overall scores."""

    rows: int
    """With a published choice."""
    changed: tuple[str, ...]
    """Prompts whose choice is not among the best any more, by overall scores that can be trusted."""
    by_chance: tuple[str, ...]
    """Prompts whose choice is still among several best: drawn, no longer the first of the list."""
    without: tuple[str, ...]
    """Prompts without any score that can be trusted."""
    changed_by_mean: int
    """Rows whose choice is not among the best by the mean of the aspects."""
    rows_by_mean: int
    """Rows that have such a best."""


class Audit(Strict):
    dataset: str
    layout: str
    splits: dict[str, int]
    sources: dict[str, int]
    answers: dict[str, int]
    """By model."""
    scales: dict[str, tuple[float, float]]
    """Source -> lowest and highest overall score."""
    findings: tuple[Finding, ...]
    """Those that were found, the costliest first."""
    clean: tuple[str, ...]
    """What was looked for and not found."""
    not_checked: tuple[str, ...]
    """What could not be looked for, and why."""
    first_of_ties: dict[str, int]
    """Model -> ties at the top that list order gave to it."""
    win_rates: dict[str, Rate] = Field(default_factory=dict)
    """Model -> how often its answer has the higher score than another model's to the same prompt; ties are left out."""
    longer_wins: Rate | None
    """How often the longer of two answers has the higher score; equal lengths and scores are left out."""
    repaired: Repaired | None

    @property
    def rows(self) -> int:
        return sum(self.splits.values())


class _Auditor:
    def __init__(self, layout: str, scale: tuple[float, float]) -> None:
        self.layout, self.scale = layout, scale
        self.counts: Counter[str] = Counter()
        self.rows_with: Counter[str] = Counter()
        self.ids: dict[str, dict[str, None]] = defaultdict(dict)
        self.examples: dict[str, list[Example]] = defaultdict(list)
        self.splits: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.models: Counter[str] = Counter()
        self.scales: dict[str, tuple[float, float]] = {}
        self.first_of_ties: Counter[str] = Counter()
        self.seen: dict[str, tuple[str, str]] = {}
        """Normalised prompt -> where it was first, and its split."""
        self.wins: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self.longer: list[tuple[int, int]] = []
        self.changed: list[str] = []
        self.by_chance: list[str] = []
        self.without: list[str] = []
        self.chosen = self.with_mean = self.other_by_mean = 0

    def note(self, entry: Entry, name: str, place: int | None, detail: str) -> None:
        self.counts[name] += 1
        self.ids[name][entry.prompt_id] = None
        if len(self.examples[name]) < EXAMPLES:
            model = entry.answers[place].model if place is not None else ""
            self.examples[name].append(
                Example(
                    where=entry.where, prompt_id=entry.prompt_id, answer=place, model=model, detail=detail
                )
            )

    def row(self, entry: Entry) -> None:
        self.splits[entry.split] += 1
        self.sources[entry.source] += 1
        self.models.update(answer.model for answer in entry.answers)
        found = list(check(entry, self.scale, self.layout))
        for name, place, detail in found:
            self.note(entry, name, place, detail)
        self.rows_with.update({name for name, _, _ in found})
        self._copies(entry)
        values = [answer.annotations[OVERALL].value for answer in entry.answers]
        for value in values:
            if value is not None:
                low, high = self.scales.get(entry.source, (value, value))
                self.scales[entry.source] = min(low, value), max(high, value)
        self._compare(entry, values)
        if self.layout == "answers":
            self._choose(entry, choice(entry, self.scale))

    def _copies(self, entry: Entry) -> None:
        text = "\n".join(normalised(message.content) for message in entry.messages)
        where, split = self.seen.setdefault(text, (entry.where, entry.split))
        if where != entry.where:
            name = "duplicate"
            if split.startswith("test") != entry.split.startswith("test"):
                name = "split_overlap"
            self.note(entry, name, None, f"as {where} ({split})")
            self.rows_with[name] += 1

    def _compare(self, entry: Entry, values: Sequence[float | None]) -> None:
        """All pairs of the row's answers, by score."""
        won: Counter[str] = Counter()
        tried: Counter[str] = Counter()
        longer = different = 0
        for i, one in enumerate(entry.answers):
            for j in range(i):
                other, a, b = entry.answers[j], values[i], values[j]
                if a is None or b is None or abs(a - b) <= EQUAL:
                    continue
                if one.model != other.model and UNKNOWN not in (one.model, other.model):
                    tried.update((one.model, other.model))
                    won[one.model if a > b else other.model] += 1
                if len(one.text) != len(other.text):
                    different += 1
                    longer += (len(one.text) > len(other.text)) == (a > b)
        for model, count in tried.items():
            self.wins[model].append((won[model], count))
        if different:
            self.longer.append((longer, different))

    def _choose(self, entry: Entry, best: Choice) -> None:
        if best.published is None:
            return
        self.chosen += 1
        if len(best.tied) > 1:
            self.first_of_ties[entry.answers[best.published].model] += 1
        if not best.repaired:
            self.without.append(entry.prompt_id)
        elif best.published not in best.repaired:
            self.changed.append(entry.prompt_id)
        elif len(best.repaired) > 1:
            self.by_chance.append(entry.prompt_id)
        if best.by_mean:
            self.with_mean += 1
            self.other_by_mean += best.published not in best.by_mean

    def mixed_scales(self) -> None:
        """Sources whose highest score is at most half of every other's: 1 to 5 among 1 to 10."""
        tops = {source: high for source, (_, high) in self.scales.items()}
        for source, top in tops.items():
            others = [each for name, each in tops.items() if name != source]
            if others and top <= min(others) / 2:
                self.counts["mixed_scales"] += 1
                low, high = self.scales[source]
                detail = f"{low:g} to {high:g}, others up to {min(others):g} and more"
                self.examples["mixed_scales"].append(
                    Example(where=source, prompt_id="", answer=None, model="", detail=detail)
                )


def audit(
    name: str,
    layout: str,
    scale: tuple[float, float],
    entries: Callable[[], Iterable[Entry]],
    cleaning: Cleaning,
) -> Audit:
    """Look at every row. `entries` is called for each pass.

    Raises:
        PromptError: a row or a benchmark's list cannot be read.
    """
    found = _Auditor(layout, scale)
    lists = Benchmarks({each.name: each.texts() for each in cleaning.benchmarks}, cleaning.ngram)
    for entry in entries():
        found.row(entry)
        if cleaning.benchmarks and entry.source != "truthful_qa":
            hit = lists.find(
                entry.prompt_id, "\n".join(m.content for m in entry.messages if m.role == "user")
            )
            if hit:
                found.note(entry, "contaminated", None, f"{hit.benchmark}, {hit.kind}: {hit.text}")
                found.rows_with["contaminated"] += 1
    if cleaning.near_duplicates is not None:
        _near(found, entries, cleaning.near_duplicates)
    if layout == "answers":
        found.mixed_scales()
    not_checked = []
    if not cleaning.benchmarks:
        not_checked.append(
            "contaminated: no benchmark lists were given, only the source's name was looked at"
        )
    if cleaning.near_duplicates is None:
        not_checked.append("near_duplicate: switched off")
    if UNKNOWN in found.models:
        not_checked.append("win rates by model: the dataset does not say who wrote what")
    rates = {model: _rate(own) for model, own in sorted(found.wins.items())}
    return Audit(
        dataset=name,
        layout=layout,
        splits=dict(found.splits),
        sources=dict(found.sources.most_common()),
        answers=dict(found.models.most_common()),
        scales=dict(sorted(found.scales.items())),
        findings=tuple(
            Finding(
                name=key,
                title=title,
                effect=effect,
                count=found.counts[key],
                rows=found.rows_with[key],
                ids=tuple(found.ids[key]),
                examples=tuple(found.examples[key]),
            )
            for key, (title, effect) in FINDINGS.items()
            if found.counts[key]
        ),
        clean=tuple(
            key
            for key in FINDINGS
            if not found.counts[key] and not any(why.startswith(f"{key}:") for why in not_checked)
        ),
        not_checked=tuple(not_checked),
        first_of_ties=dict(found.first_of_ties.most_common()),
        win_rates={model: rate for model, rate in rates.items() if rate},
        longer_wins=_rate(found.longer),
        repaired=Repaired(
            rows=found.chosen,
            changed=tuple(found.changed),
            by_chance=tuple(found.by_chance),
            without=tuple(found.without),
            changed_by_mean=found.other_by_mean,
            rows_by_mean=found.with_mean,
        )
        if layout == "answers"
        else None,
    )


def _rate(own: Sequence[tuple[int, int]]) -> Rate | None:
    """Of wins and trials, a pair of numbers for each prompt."""
    return clustered([wins for wins, _ in own], [trials for _, trials in own])


def _near(found: _Auditor, entries: Callable[[], Iterable[Entry]], threshold: float) -> None:
    """Near copies among prompts that are no copies."""
    from pairs.near import near_duplicates

    kept: list[Entry] = []

    def texts() -> Iterable[str]:
        places = {where for where, _ in found.seen.values()}
        for entry in entries():
            if entry.where in places:
                kept.append(Entry(entry.where, entry.split, entry.prompt_id, (), entry.source, ()))
                yield "\n".join(message.content for message in entry.messages)

    for later, earlier, share in near_duplicates(texts(), threshold):
        found.note(kept[later], "near_duplicate", None, f"{share:.2f} of {kept[earlier].where}")
        found.rows_with["near_duplicate"] += 1
