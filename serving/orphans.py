"""Pid files of managed servers, by which a later run ends the servers of one that was killed.

    {"name": "judge", "host": "box", "group": 4711, "port": 40123, "command": ["vllm", "serve", "..."],
     "processes": {"4711": "<boot id>:88120", "4712": "<boot id>:88121"},
     "parent": 4700, "parent_started": "<boot id>:87000"}

A number alone never gets a process killed: the start time beside it must still be the one written down.
"""

import json
import logging
import os
import socket
from pathlib import Path

from serving import guard

log = logging.getLogger(__name__)

SUFFIX = ".pid.json"


def write_pid_file(path: Path, name: str, group: int, port: int, command: list[str]) -> None:
    entry = {
        "name": name,
        "host": socket.gethostname(),
        "group": group,
        "processes": {str(pid): guard.started(pid) for pid in sorted({group, *guard.members(group)})},
        "port": port,
        "command": command,
        "parent": os.getpid(),
        "parent_started": guard.started(os.getpid()),
    }
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(entry, indent=1))
    partial.rename(path)


def reap_orphans(folder: Path, grace: float = 15.0) -> list[str]:
    """End every server of this machine under `folder` whose parent is gone; their names and numbers.

    Pid files of servers that have ended are removed; those of other machines and of living parents stay.
    """
    reaped = []
    for path in sorted(folder.rglob(f"*{SUFFIX}")):
        try:
            entry = json.loads(path.read_text())
            if entry["host"] != socket.gethostname():
                continue
            if entry["parent_started"] and guard.started(entry["parent"]) == entry["parent_started"]:
                continue
            group, processes = entry["group"], entry["processes"]
        except (FileNotFoundError, ValueError, KeyError) as error:
            log.warning("%s is no pid file of a server (%r); left alone", path, error)
            continue
        ours = [pid for pid in guard.members(group) if guard.started(pid) == processes.get(str(pid))]
        if ours:  # at least one member is certainly ours, so the group's number was never given again
            log.warning("%s: its run is gone; ending processes %s", entry["name"], guard.members(group))
            if left := guard.end(group, grace):
                log.error("%s: processes %s did not end on SIGKILL", entry["name"], left)
                continue
            reaped.append(f"{entry['name']} ({group})")
        path.unlink(missing_ok=True)
    return reaped
