"""What the judge's prompt layout costs on a server with a prefix cache, at a small size."""

from benchmarks.prefix import MOST, made_up, run
from benchmarks.simulator import simulator
from serving.settings import Endpoint


async def test_four_aspects_cost_little_more_than_their_unique_tokens_and_another_layout_does_not():
    with simulator(speed=20) as server:
        endpoint = Endpoint(model="simulated", base_url=server.url, dialect="vllm", max_in_flight=64)
        rows = await run(made_up(8, 4), endpoint, "", server.reset)
    ours, other = (
        next(row for row in rows if row["layout"] == name) for name in ("question last", "rubric first")
    )
    assert ours["requests"] == 8 * 4 * 4
    assert 1 <= ours["read_per_unique"] <= MOST
    assert other["read"] > 2 * ours["read"]
