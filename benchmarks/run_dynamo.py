# pyright: reportMissingImports=false
"""Seconds NVIDIA Dynamo's mock engine takes for requests of given lengths, in virtual time: a simulator not our own.

Runs in its environment: `python -m benchmarks.run_dynamo FILE` with a JSON list of {"in_flight", "lengths": [[prompt,
answer], …]}; prints a list of seconds. It has vLLM's scheduler (chunked prefill, KV blocks, preemption), step times
that are polynomials in batch and context, and takes traces in Mooncake's format.
"""

import json
import sys
import tempfile
from pathlib import Path

from dynamo import _core

BLOCK = 512
"""Prompt tokens of one block of a trace."""


def seconds(lengths: list[tuple[int, int]], in_flight: int) -> float:
    blocks, lines = 0, []
    for prompt, answer in lengths:
        count = -(-prompt // BLOCK)
        ids = list(range(blocks, blocks + count))  # no two prompts share any
        blocks += count
        lines.append({"timestamp": 0, "input_length": prompt, "output_length": answer, "hash_ids": ids})
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))
        file.flush()
        found = _core.run_mocker_trace_replay([file.name], replay_concurrency=in_flight).summary
    if found["completed_requests"] != len(lengths):
        raise ValueError(f"{found['completed_requests']} of {len(lengths)} requests were completed")
    return found["duration_ms"] / 1000


if __name__ == "__main__":
    ASKED = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps([seconds(one["lengths"], one["in_flight"]) for one in ASKED]))
