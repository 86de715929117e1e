"""The pipeline beside distilabel, bespokelabs-curator and NeMo Data Designer: same prompts, servers, machine.

    make bench-peers                    # under half an hour on two cores; environments are made the first time
    make bench-peers ROWS=0.1           # a tenth of the rows
    python -m benchmarks.peers --table  # writes the tables in docs/benchmarks.md and README.md again

Every client runs in an environment of its own, against fresh simulated servers on 127.0.0.1, with its telemetry off.
Answers and ratings are checked one by one against what the servers said; requests are counted by the servers.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks.peers.environments import CACHE, CLIENTS, prepare, versions
from benchmarks.peers.plan import MEASUREMENTS, speeds, stops, summaries
from benchmarks.peers.table import LARGE, RESULT, plain, rewrite
from benchmarks.report import finish


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=float, default=1.0, help="times the usual number of rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=list(CLIENTS))
    parser.add_argument("--only", nargs="+", default=[], choices=[m.name for m in MEASUREMENTS])
    parser.add_argument("--no-stops", action="store_true", help="leave out the kill and the changed judge")
    parser.add_argument("--environments", type=Path, default=CACHE)
    parser.add_argument("--out", type=Path, help="write the result here, too")
    parser.add_argument("--table", action="store_true", help="only write the documentation's tables again")
    asked = parser.parse_args()
    if asked.table:
        rewrite(json.loads(RESULT.read_text()), json.loads(LARGE.read_text()) if LARGE.exists() else None)
        return
    began, clients, missing = time.monotonic(), [], {}
    for name in asked.clients:
        if why := prepare(CLIENTS[name], asked.environments):
            missing[name] = why
            print(f"{name} is left out, its environment cannot be made: {why}", file=sys.stderr)
        else:
            clients.append(CLIENTS[name])
    found = speeds(clients, asked.only, asked.rows, asked.rounds, asked.environments)
    results = {
        "rows": asked.rows,
        "rounds": asked.rounds,
        "missing": missing,
        "pinned": {client.name: versions(client) for client in clients if client.requirements},
        "speeds": summaries(found, asked.rows),
        "stops": {} if asked.no_stops else stops(clients, asked.rows, asked.environments),
        "minutes": (time.monotonic() - began) / 60,
    }
    print(plain(results))
    finish("peers", results, asked.out)


if __name__ == "__main__":
    main()
