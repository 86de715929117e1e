"""The time requests take on simulated machines when the client costs nothing: the bound a pipeline is held to.

The same arithmetic as the live simulator, without waiting: every generation is queued at once, each model serves its
own, and a judgement is queued the moment its answer is there.
"""

from dataclasses import dataclass

from benchmarks.batching import Batch, Job, Machine, blocks_of, tokens_of
from benchmarks.replies import Body, Lengths, Said, say, shown


@dataclass(eq=False)
class Step:
    """One request and what can only be asked after it."""

    machine: str
    job: Job
    then: "Step | None" = None


def job_of(body: Body, lengths: Lengths) -> tuple[Job, list[Said]]:
    """A request as work for a machine, and what it will be answered."""
    prompt = shown(body)
    said = say(body, prompt, lengths)
    return Job(tokens_of(prompt), [one.tokens for one in said], blocks_of(prompt)), said


def makespan(steps: list[Step], machines: dict[str, Machine]) -> float:
    """Seconds from the first request until the last answer."""
    batches = {name: Batch(machine) for name, machine in machines.items()}
    ended = 0.0
    for step in steps:
        step.job.payload = step
        batches[step.machine].add(step.job, 0.0)
    while True:
        ends = [(end, name) for name, batch in batches.items() if (end := batch.next_end()) is not None]
        if not ends:
            return ended
        ended, name = min(ends)
        for job in batches[name].advance(ended):
            following = job.payload.then
            if following is not None:
                following.job.payload = following
                batches[following.machine].add(following.job, ended)
