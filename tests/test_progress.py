"""What people are told while models are asked: pace, time left, a table in a terminal and lines elsewhere."""

import io

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from flows.progress import HEAD, RECENT, Bar, Display, clock
from records.schema import Usage
from serving.client import Transport
from serving.engine import Lane
from serving.limits import Queue
from serving.meter import Meter
from serving.purse import Prices


async def never() -> Transport:
    raise AssertionError


def meter(name: str = "m") -> Meter:
    """Ten seconds at 30 tokens per second out and 60 in."""
    lane = Lane(name, never, 8)
    lane.prices = Prices(1.0, 10.0)
    found = Meter(lane)
    for second in range(11):
        lane.stats.sent = 4 + second
        lane.stats.usage = Usage(
            prompt_tokens=60 * second, cached_tokens=15 * second, completion_tokens=30 * second
        )
        found.look(100 + second, Queue(4, 2))
    lane.stats.retries["429"] = 3
    return found


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    at = [1000.0]
    monkeypatch.setattr("flows.progress.time.monotonic", lambda: at[0])
    return at


def test_the_time_left_is_by_the_pace_of_the_last_minute_and_not_by_what_was_there():
    bar = Bar("generate a", 1000)
    bar.count(500, there=True, now=0)
    assert bar.left(0) is None
    for second in range(100):
        bar.count(1, there=False, now=second)
    assert bar.left(99) == pytest.approx(400)
    for tenth in range(800):
        if bar.done < 990:
            bar.count(1, there=False, now=100 + tenth / 5)
    assert bar.left(100 + 390 / 5) == pytest.approx(10 / 5, rel=0.1), "five a second over the last minute"
    assert bar.marks[1][0] >= 100 + 389 / 5 - RECENT - 1


def test_the_plan_says_what_is_left_until_there_is_a_pace(now: list[float]):
    shown = Display(ends={"judge": 1090.0})
    generate, judge = shown.add("generate a", 10, "a"), shown.add("judge r", 10, "judge")
    shown.add("judge rules", 10)
    assert shown.left() is None, "nobody knows how fast model a is"
    generate()
    now[0] += 10
    generate()
    assert (shown.left("a"), shown.left("judge"), shown.left()) == (80, 80, 80)
    judge()
    now[0] += 2
    judge()
    assert shown.left("judge") == 16 and shown.left() == pytest.approx(96)
    now[0] += 200
    assert shown.left("nobody") == 0


def test_without_a_terminal_a_line_says_everything(capsys: pytest.CaptureFixture[str], now: list[float]):
    shown = Display()
    step = shown.add("generate a", 100, "m")
    for _ in range(11):
        step()
        now[0] += 1
    shown.tell(meter())
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"{'generate a':<24} 11/100  10 s, 1 min left"
    assert second == (
        "m: 4 running, 2 waiting, limit 8, 60 tokens/s in (25% cached), 30 out, starved 0%, 3 sent again, 0 failed, "
        "spent 0.0036, 2 min left"
    )


def test_in_a_terminal_a_table_has_a_row_for_each_model_that_was_asked(now: list[float]):
    out = io.StringIO()
    console = Console(file=out, width=140, force_terminal=True, color_system=None)
    shown = Display(rich=Progress(TextColumn("{task.description}{task.fields[left]}"), console=console))
    idle = Meter(Lane("idle", never, 8))
    shown.meters = {"m": meter(), "idle": idle}
    step = shown.add("generate a", 5, "m")
    step()
    now[0] += 30
    step()
    console.print(shown)
    text = out.getvalue()
    assert "generate a2 min left" in text and "2 min left in all" in text and "idle" not in text
    cells = dict(zip(HEAD, shown.rows()[0].values(), strict=True))
    assert cells == {
        "model": "m", "running": "4", "waiting": "2", "limit": "8", "tokens/s in": "60", "cached": "25%",
        "tokens/s out": "30", "starved": "0%", "sent again": "3", "failed": "0", "left": "2 min", "spend": "0.0036",
    }  # fmt: skip
    assert all(head in text for head in HEAD)


def test_times_are_written_for_people():
    assert [clock(s) for s in (None, 7.4, 62, 3723)] == ["?", "7 s", "1 min", "1 h 02 min"]
