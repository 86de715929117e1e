"""One client on one job against fresh simulated servers: what it cost, what the servers saw, what came back."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.batching import Machine
from benchmarks.peers.environments import ROOT, Client
from benchmarks.peers.job import Job
from benchmarks.replies import Lengths, planted, rating, say, shown
from benchmarks.simulator import Simulated, simulator
from benchmarks.workload import PADDING, settings_of
from prompts.load import load_prompt

WATCH = (sys.executable, "-m", "benchmarks.peers.watch")
JUDGE = "judges/ultrafeedback_instruction_following"

QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TELEMETRY_ENABLED": "false",
    "CURATOR_DISABLE_RICH_DISPLAY": "1",
    "NEMO_TELEMETRY_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "NO_PROXY": "127.0.0.1",
}
"""No client reports to its maker, and none draws in a terminal."""


@dataclass(frozen=True)
class Work:
    """A size of the one job all clients do."""

    rows: int
    """Prompts."""
    models: int = 1
    judged: bool = False
    speed: float = 1.0
    """Of the simulated machines, times an H100's."""
    faults: float = 0.0
    in_flight: int = 320
    timeout: float = 600.0
    max_tokens: int = 1024
    lengths: Lengths = field(default_factory=lambda: Lengths(seeded=0))

    @property
    def names(self) -> list[str]:
        return [f"model-{i}" for i in range(self.models)]

    @cached_property
    def prompts(self) -> list[str]:
        return [f"Question {i}. {PADDING}".strip() for i in range(self.rows)]

    @property
    def answers(self) -> int:
        return self.rows * self.models

    @property
    def requests(self) -> int:
        """The fewest that do the job."""
        return self.answers + (self.rows if self.judged else 0)

    @cached_property
    def truth(self) -> dict[tuple[int, str], str]:
        """What each model says to each prompt."""
        found = {}
        for i, prompt in enumerate(self.prompts):
            for name in self.names:
                messages = [{"role": "user", "content": prompt}]
                body = {"model": name, "messages": messages, "max_tokens": self.max_tokens}
                found[i, name] = say(body, shown(body), self.lengths)[0].text.strip()
        return found


@dataclass
class Bench:
    """Servers and a folder in which clients run, one after the other, each going on where the last one was stopped."""

    work: Work
    folder: Path
    servers: dict[str, Simulated]
    environments: Path
    runs: int = 0

    def run(
        self,
        client: Client,
        *,
        tuned: bool = True,
        changed: bool = False,
        limit: float = 900,
        kill_at: int | None = None,
    ) -> dict[str, Any]:
        """`kill_at`: answered requests after which everything the client started is killed."""
        job, before, cpu = self._job(tuned, changed), self._stats(), self._cpu()
        path, log = self.folder / "job.json", self.folder / f"log-{self.runs}.txt"
        job.write(path)
        watching = subprocess.Popen(
            [
                *WATCH,
                str(limit),
                str(log),
                str(client.python(self.environments)),
                "-m",
                client.module,
                str(path),
            ],
            cwd=ROOT,
            env=os.environ | QUIET | self._folders(),
            stdout=subprocess.PIPE,
            text=True,
        )
        in_flight = 0
        if kill_at is not None:
            while watching.poll() is None and self.answered() < kill_at:
                time.sleep(0.05)
            in_flight = self.in_flight()
            watching.send_signal(signal.SIGTERM)
        said, _ = watching.communicate()
        found = json.loads(said.splitlines()[-1])
        after = self._stats()
        self.runs += 1
        return found | self._served(before, after, found) | checked(self.work, Path(job.out)) | {
            "simulator_cpu_s": self._cpu() - cpu,
            "in_flight_at_kill": in_flight,
            "error": "" if found["code"] == 0 else _last_words(log),
        }  # fmt: skip

    def _job(self, tuned: bool, changed: bool) -> Job:
        urls = {name: server.url for name, server in self.servers.items()}
        text = load_prompt(JUDGE).text
        out = self.folder / "rows.jsonl"
        out.unlink(missing_ok=True)
        return Job(
            prompts=self.work.prompts,
            models={name: urls[name] for name in self.work.names},
            judge=urls.get("judge"),
            judge_text=text.replace("Rate how far", "Say how far", 1) if changed else text,
            changed=changed,
            tuned=tuned,
            in_flight=self.work.in_flight,
            timeout=self.work.timeout,
            max_tokens=self.work.max_tokens,
            folder=str(self.folder / "state"),
            out=str(out),
        )

    def _folders(self) -> dict[str, str]:
        return {
            "HOME": str(self.folder),
            "HF_HOME": str(self.folder / "hf"),
            "PREFECT_HOME": str(self.folder / "prefect"),
            "CURATOR_CACHE_DIR": str(self.folder / "curator"),
            "DISTILABEL_CACHE_DIR": str(self.folder / "distilabel"),
            "DATA_DESIGNER_HOME": str(self.folder / "data-designer"),
        }

    def _stats(self) -> dict[str, dict[str, Any]]:
        return {name: server.stats() for name, server in self.servers.items()}

    def answered(self) -> int:
        """Requests so far, in all runs."""
        return sum(stats["requests"] for stats in self._stats().values())

    def in_flight(self) -> int:
        return sum(stats["running"] + stats["waiting"] for stats in self._stats().values())

    def drain(self) -> None:
        """Wait until the servers have finished what nobody waits for any more."""
        while self.in_flight():
            time.sleep(0.1)

    def _cpu(self) -> float:
        ticks, total = os.sysconf("SC_CLK_TCK"), 0.0
        for server in self.servers.values():
            stat = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(stat[11]) + int(stat[12])) / ticks
        return total

    def _served(self, before: dict[str, Any], after: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
        """What the servers counted since `before`; `span_s` from the first request to the last answer."""
        gained = {
            name: {key: after[name][key] - before[name][key] for key in ("requests", "generation_tokens")}
            for name in after
        }
        firsts = [stats["first"] for stats in after.values() if stats["first"] is not None]
        fresh = not any(stats["requests"] for stats in before.values()) and bool(firsts)
        faults = sum((Counter(stats["faults"]) for stats in after.values()), Counter[str]())
        return {
            "requests": {name: one["requests"] for name, one in gained.items()},
            "tokens": sum(one["generation_tokens"] for one in gained.values()),
            "start_s": min(firsts) - found["began"] if fresh else None,
            "span_s": max(stats["last"] for stats in after.values()) - min(firsts) if fresh else None,
            "faults": dict(faults),
        }


def checked(work: Work, path: Path) -> dict[str, Any]:
    """Every answer and rating in a file of rows against what the servers said; `digest` is of all of them."""
    if not path.exists():
        return {"rows": None}
    rows: dict[int, dict[str, Any]] = {}
    counts = dict.fromkeys(("lost", "wrong", "doubled", "unrated", "misrated"), 0)
    for line in path.read_text().splitlines():
        row = json.loads(line)
        counts["doubled"] += row["i"] in rows
        rows.setdefault(row["i"], row)
    digest = hashlib.sha256()
    for (i, name), text in work.truth.items():
        row = rows.get(i) or {"answers": {}, "ratings": {}}
        said, rated = (row["answers"].get(name) or "").strip(), row["ratings"].get(name)
        counts["lost"] += not said
        counts["wrong"] += bool(said) and said != text
        if work.judged:
            counts["unrated"] += rated is None
            counts["misrated"] += rated is not None and rated != rating(planted(text)[0])
        digest.update(json.dumps([i, name, said, None if rated is None else int(rated)]).encode())
    return counts | {"rows": len(rows), "digest": digest.hexdigest()[:12]}


@contextmanager
def bench(work: Work, environments: Path) -> Iterator[Bench]:
    """Fresh servers and an empty folder."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-")))
        options = settings_of(Machine(speed=work.speed), work.lengths) | {"faults": work.faults}
        names = [*work.names, "judge"] if work.judged else work.names
        servers = {name: stack.enter_context(simulator(name=name, **options)) for name in names}
        yield Bench(work, folder, servers, environments)


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-3:])[-400:]
