"""The store keeps what it was given, whatever happens to the process around it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from records.lock import exclusive
from records.schema import Usage
from records.store import Row, Stage, StoreError, replay

ASKED = {"sampler": "a", "temperature": 0.5}


def completion(key: str, text: str = "yes") -> dict:
    return {
        "id": f"c-{key}", "prompt_id": key, "model": "a", "sample": 0, "text": text, "finish_reason": "stop",
        "usage": Usage(prompt_tokens=3, completion_tokens=1, requests=1).model_dump(), "principle": None, "seed": 1,
        "fingerprint": "f",
    }  # fmt: skip


def row(key: str, text: str = "yes") -> Row:
    return Row(key, [completion(key, text)])


def dropped(key: str, reason: str) -> Row:
    return Row(key, [], {"id": key, "stage": "completions", "reason": reason, "detail": "why"})


def fill(stage: Stage, keys: list[str], index: int = 0):
    shard = stage.open(index, keys)
    for key in shard.missing:
        shard.put(row(key))
    return shard.seal()


def test_a_sealed_shard_keeps_the_order_of_its_keys_not_of_the_answers(tmp_path: Path):
    stage = Stage(tmp_path, "completions", ASKED)
    shard = stage.open(0, ["a", "b", "c"])
    for key in ("c", "a"):
        shard.put(row(key))
    shard.put(dropped("b", "too_long"))
    receipt = shard.seal()
    assert [r.key for r in stage.rows(receipt)] == ["a", "b", "c"]
    assert (receipt.rows, receipt.answers, receipt.dropped) == (3, 2, {"too_long": 1})
    assert receipt.usage.completion_tokens == 2
    assert not list(tmp_path.rglob("*.jsonl"))
    assert Stage(tmp_path, "completions", ASKED).sealed(0, ["a", "b", "c"]) == receipt


def test_a_torn_last_line_is_asked_again_and_nothing_else(tmp_path: Path):
    shard = Stage(tmp_path, "completions", ASKED).open(0, ["a", "b", "c"])
    shard.put(row("a"))
    shard.put(row("b"))
    shard.close()
    with shard.path.open("r+b") as file:
        file.truncate(shard.path.stat().st_size - 7)
    again = Stage(tmp_path, "completions", ASKED).open(0, ["a", "b", "c"])
    assert again.missing == ["b", "c"]
    again.put(row("b"))
    again.put(row("c"))
    assert again.seal().answers == 3


def test_an_unreadable_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path):
    shard = Stage(tmp_path, "completions", ASKED).open(0, ["a", "b"])
    shard.close()
    shard.path.write_bytes(b'{"key":"a"\n{"key":"b","answers":[],"dropped":null}\n')
    with pytest.raises(StoreError, match="line 1 cannot be read"):
        list(replay(shard.path))


def test_every_prefix_of_a_journal_replays(tmp_path: Path):
    shard = Stage(tmp_path, "completions", ASKED).open(0, ["a", "b", "c"])
    for key in "abc":
        shard.put(row(key))
    shard.close()
    whole = shard.path.read_bytes()
    for length in range(len(whole) + 1):
        shard.path.write_bytes(whole[:length])
        assert [r.key for r in replay(shard.path)] == list("abc")[: whole[:length].count(b"\n")]


def test_a_killed_process_loses_no_answer_it_had_put(tmp_path: Path):
    code = (
        "import os, signal, sys; sys.path.insert(0, '.')\n"
        "from tests.records.test_store import *\n"
        f"shard = Stage({str(tmp_path)!r}, 'completions', ASKED).open(0, list('abcdef'))\n"
        "for key in 'abcd': shard.put(row(key))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert Stage(tmp_path, "completions", ASKED).open(0, list("abcdef")).missing == ["e", "f"]


def test_a_changed_prompt_list_asks_only_what_is_new(tmp_path: Path):
    fill(Stage(tmp_path, "completions", ASKED), ["a", "b"])
    fill(Stage(tmp_path, "completions", ASKED), ["c", "d"], index=1)
    changed = Stage(tmp_path, "completions", ASKED).open(0, ["d", "x", "a"])
    assert changed.missing == ["x"]
    changed.put(row("x"))
    changed.seal()
    back = Stage(tmp_path, "completions", ASKED)
    assert back.open(0, ["a", "b"]).missing == [], "answers of the replaced shard were paid for"


def test_answers_in_the_journal_of_another_prompt_list_are_kept(tmp_path: Path):
    shard = Stage(tmp_path, "completions", ASKED).open(0, ["a", "b"])
    shard.put(row("a"))
    shard.close()
    fill(Stage(tmp_path, "completions", ASKED), ["x"])
    assert Stage(tmp_path, "completions", ASKED).open(1, ["a", "b"]).missing == ["b"]


def test_a_transport_error_is_asked_again_and_a_refused_request_is_not(tmp_path: Path):
    shard = Stage(tmp_path, "completions", ASKED).open(0, ["a", "b", "c"])
    shard.put(row("a"))
    shard.put(dropped("b", "transport_error"))
    shard.put(dropped("c", "too_long"))
    shard.seal()
    again = Stage(tmp_path, "completions", ASKED)
    assert again.sealed(0, ["a", "b", "c"]) is None
    assert again.open(0, ["a", "b", "c"]).missing == ["b"]


def test_an_edited_shard_is_refused_by_name(tmp_path: Path):
    stage = Stage(tmp_path, "completions", ASKED)
    receipt = fill(stage, ["a"])
    path = tmp_path / receipt.name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreError, match=r"00000\.parquet is gone or was edited"):
        stage.rows(receipt)
    with pytest.raises(StoreError, match="was edited"):
        Stage(tmp_path, "completions", ASKED).sealed(0, ["a"])


def test_a_full_disk_keeps_what_was_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shard = Stage(tmp_path, "completions", ASKED).open(0, ["a", "b"])
    shard.put(row("a"))
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:5]))
    with pytest.raises(StoreError, match="No space left on device; 1 of 2 answers are kept"):
        shard.put(row("b"))
    monkeypatch.undo()
    assert Stage(tmp_path, "completions", ASKED).open(0, ["a", "b"]).missing == ["b"]


def test_what_is_asked_names_the_folder(tmp_path: Path):
    one = Stage(tmp_path, "completions", ASKED)
    other = Stage(tmp_path, "completions", ASKED | {"temperature": 0.6})
    assert one.fingerprint != other.fingerprint
    assert Stage(tmp_path, "completions", dict(reversed(ASKED.items()))).fingerprint == one.fingerprint


def test_an_unfinished_shard_cannot_be_sealed(tmp_path: Path):
    with pytest.raises(StoreError, match="1 of 1 rows have no answer yet"):
        Stage(tmp_path, "completions", ASKED).open(0, ["a"]).seal()


def test_a_second_run_on_the_same_folder_is_refused(tmp_path: Path):
    with exclusive(tmp_path):
        code = (
            "import sys; sys.path.insert(0, '.')\n"
            "from records.lock import exclusive\nfrom pathlib import Path\n"
            f"with exclusive(Path({str(tmp_path)!r})): pass"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"in use by process {os.getpid()}" in result.stderr
    with exclusive(tmp_path):
        pass


def test_sealed_shards_live_at_any_fsspec_address(tmp_path: Path):
    stage = Stage("memory://bucket/run", "completions", ASKED, journals=tmp_path)
    shard = stage.open(0, ["a", "b"])
    shard.put(row("a"))
    shard.close()
    again = Stage("memory://bucket/run", "completions", ASKED, journals=tmp_path).open(0, ["a", "b"])
    assert again.missing == ["b"]
    again.put(row("b"))
    receipt = again.seal()
    assert fsspec.filesystem("memory").exists(f"/bucket/run/{receipt.name}")
    assert len(Stage("memory://bucket/run", "completions", ASKED, journals=tmp_path).rows(receipt)) == 2


def texts(stage: Stage) -> list[str]:
    receipt = stage.receipt(0)
    assert receipt is not None
    return [r.answers[0]["text"] for r in stage.rows(receipt)]


def test_a_row_asked_again_replaces_the_old_answer_and_the_old_one_is_kept(tmp_path: Path):
    fill(Stage(tmp_path, "completions", ASKED), ["a", "b"])
    stage = Stage(tmp_path, "completions", ASKED)
    shard = stage.open(0, ["a", "b"], without=lambda r: r.key == "b")
    assert shard.missing == ["b"]
    shard.put(row("b", "better"))
    shard.seal()
    for again in (stage, Stage(tmp_path, "completions", ASKED)):
        assert texts(again) == ["yes", "better"]
        assert again.find(["b"])["b"].answers[0]["text"] == "better"
        assert again.sealed(0, ["a", "b"]) is not None
    assert len(list(tmp_path.rglob("replaced-00000-*.parquet"))) == 1
    assert not list(tmp_path.rglob("kept-*"))


def test_a_run_that_ends_while_asking_again_loses_neither_the_new_nor_the_old_answers(tmp_path: Path):
    fill(Stage(tmp_path, "completions", ASKED), ["a", "b", "c"])
    shard = Stage(tmp_path, "completions", ASKED).open(0, ["a", "b", "c"], without=lambda r: r.key != "a")
    shard.put(row("b", "better"))
    shard.close()
    stage = Stage(tmp_path, "completions", ASKED)
    assert stage.sealed(0, ["a", "b", "c"]) is None, "a shard with a journal beside it is not closed"
    shard = stage.open(0, ["a", "b", "c"])
    assert not shard.missing
    shard.seal()
    assert texts(stage) == ["yes", "better", "yes"]


def test_an_answer_kept_of_another_prompt_list_is_older_than_a_sealed_one(tmp_path: Path):
    fill(Stage(tmp_path, "completions", ASKED), ["a", "b"])
    fill(Stage(tmp_path, "completions", ASKED), ["a", "c"])
    stage = Stage(tmp_path, "completions", ASKED)
    shard = stage.open(0, ["a", "c"], without=lambda r: r.key == "a")
    shard.put(row("a", "better"))
    shard.seal()
    assert Stage(tmp_path, "completions", ASKED).find(["a"])["a"].answers[0]["text"] == "better"


def test_a_transport_error_asked_again_leaves_no_copy(tmp_path: Path):
    stage = Stage(tmp_path, "completions", ASKED)
    shard = stage.open(0, ["a", "b"])
    shard.put(row("a"))
    shard.put(dropped("b", "transport_error"))
    shard.seal()
    fill(Stage(tmp_path, "completions", ASKED), ["a", "b"])
    assert {path.name for path in tmp_path.rglob("*.*")} == {"asked.json", "00000.json", "00000.parquet"}


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path: Path):
    code = (
        "import sys, time; from pathlib import Path; from records.lock import exclusive\n"
        "with exclusive(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout and holder.stdout.readline() == b"held\n"
    with (
        pytest.raises(StoreError, match=f"in use by process {holder.pid} on {socket.gethostname()}"),
        exclusive(tmp_path),
    ):
        pass
    holder.kill()
    holder.wait()
    with exclusive(tmp_path):
        pass


def test_a_run_lends_its_folder_to_the_run_it_waits_for_and_to_no_other(tmp_path: Path):
    code = (
        "import sys, time; from pathlib import Path; from records.lock import exclusive\n"
        "with exclusive(Path(sys.argv[1]), 'parent'): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout and holder.stdout.readline() == b"held\n"
    try:
        with exclusive(tmp_path, "child", lambda: "parent"):
            pass
        with pytest.raises(StoreError, match="for parent"), exclusive(tmp_path, "other", lambda: "someone"):
            pass
    finally:
        holder.kill()
        holder.wait()


def test_a_remote_store_that_cannot_be_written_keeps_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from fsspec.implementations.memory import MemoryFileSystem

    stage = Stage("memory://full", "completions", {"asked": 1}, journals=tmp_path)
    shard = stage.open(0, ["a", "b"])
    for key in ("a", "b"):
        shard.put(Row(key, [], {"id": key, "stage": "completions", "reason": "too_long", "detail": ""}))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "pipe_file", refuse)
        with pytest.raises(StoreError, match=r"cannot seal .*No space left.*all answers are kept"):
            shard.seal()
    again = Stage("memory://full", "completions", {"asked": 1}, journals=tmp_path).open(0, ["a", "b"])
    assert not again.missing
    assert again.seal().rows == 2
