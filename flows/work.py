"""What is left to be asked of every model, so that each leaves its GPUs when its part is done."""

from collections import Counter

from flows.recipe import Recipe
from judges.jury import Member
from serving.placement import GENERATE, JUDGE, Part
from serving.settings import Adapter, Sampler
from serving.turns import Turns


class Work:
    """Shards to be asked, by model and part; a model without any takes no turn."""

    def __init__(self, turns: Turns, recipe: Recipe) -> None:
        self._turns, self._recipe = turns, recipe
        self._left: dict[Part, Counter[str]] = {GENERATE: Counter(), JUDGE: Counter()}

    def to_generate(self, sampler: Sampler, shards: int) -> None:
        if shards:
            self._left[GENERATE][self._server(sampler.model)] += shards

    def to_judge(self, member: Member, shards: int) -> None:
        if member.asks and shards:
            self._left[JUDGE][self._server(member.asks)] += shards

    async def begin(self) -> None:
        await self._turns.begin(self._left[GENERATE].keys(), self._left[JUDGE].keys())

    def _server(self, model: str) -> str:
        """The model that is served: an adapter's is its base."""
        served = self._recipe.models.get(model)
        return served.served_by if isinstance(served, Adapter) else model

    def streams(self, member: Member, *samplers: Sampler) -> bool:
        """Whether the judge is there while all of these answer, and can judge what comes when it comes."""
        asks = self._server(member.asks) if member.asks else None
        return all(self._turns.schedule.together(self._server(s.model), asks) for s in samplers)

    async def wait_generator(self, sampler: Sampler) -> None:
        await self._turns.wait(self._server(sampler.model), GENERATE)

    async def wait_judge(self, member: Member) -> None:
        if member.asks:
            await self._turns.wait(self._server(member.asks), JUDGE)

    async def generated(self, sampler: Sampler) -> None:
        await self._one_less(self._server(sampler.model), GENERATE)

    async def judged(self, member: Member) -> None:
        if member.asks:
            await self._one_less(self._server(member.asks), JUDGE)

    async def _one_less(self, model: str, part: Part) -> None:
        self._left[part][model] -= 1
        if not self._left[part][model]:
            await self._turns.finished(model, part)
