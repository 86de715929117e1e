"""What a simulated endpoint allows one client: requests within a window, or at one time; beyond that it refuses.

A refusal says how long to stay away. Who keeps coming in that time is banned: its connections are closed for good.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

Shape = Literal["sliding", "fixed", "bucket"]
GRACE = 0.25
"""Seconds after a refusal in which requests may arrive that were under way."""
PATIENCE = 3
"""Requests within one time of staying away that are forgiven."""


@dataclass
class Allowance:
    """`refusal` 0: everything is allowed."""

    refusal: int = 0
    """The status it refuses with: 429 or 503."""
    requests: int = 0
    """Within a window; 0: any number."""
    window: float = 60.0
    shape: str = "sliding"
    """`sliding`: within any window. `fixed`: windows one after the other. `bucket`: refilled, holds 1 s worth."""
    at_once: int = 0
    """Requests at one time; 0: any number."""
    stay_away: float = 0.0
    """Seconds said where the rule itself gives none; seconds are said as whole ones, rounded up."""
    silent: int = 0
    """1: refusals say no time, and nobody is banned."""
    taken: int = 0
    refused: int = 0
    ignored: int = 0
    banned: int = 0
    began: float | None = None
    _times: deque[float] = field(default_factory=deque)
    _level: float = 0.0
    _since: float = 0.0
    _away: tuple[float, float] = (0.0, 0.0)
    _forgiven: int = 0

    def admit(self, now: float, at_once: int) -> float | None:
        """None where a request may be served, else the seconds to stay away; a banned client is told infinity.

        `at_once`: requests that are being served.
        """
        if not self.refusal:
            return None
        if self.began is None:
            self.began = self._since = now
            self._level = max(1.0, self.requests / self.window)
        if self.banned:
            return math.inf
        if self._away[0] + GRACE < now < self._away[1]:
            self.ignored += 1
            self._forgiven += 1
            if self._forgiven > PATIENCE and not self.silent:
                self.banned = 1
                return math.inf
        wait = self._wait(now)
        if self.at_once and at_once >= self.at_once:
            wait = max(wait, self.stay_away or 1.0)
        if wait <= 0:
            self.taken += 1
            self._level -= 1
            self._times.append(now)
            return None
        self.refused += 1
        wait = float(math.ceil(wait))
        if now > self._away[1]:
            self._away, self._forgiven = (now, now + wait), 0
        return wait

    def _wait(self, now: float) -> float:
        """Seconds until the next request fits."""
        if not self.requests:
            return 0.0
        begin = now - self.window
        if self.shape == "fixed":
            begin = now - (now - (self.began or 0.0)) % self.window
        while self._times and self._times[0] <= begin:
            self._times.popleft()
        if self.shape == "bucket":
            rate = self.requests / self.window
            self._level = min(max(1.0, rate), self._level + (now - self._since) * rate)
            self._since = now
            return self.stay_away or (1 - self._level) / rate if self._level < 1 else 0.0
        if len(self._times) < self.requests:
            return 0.0
        if self.shape == "fixed":
            return begin + self.window - now
        return self.stay_away or self._times[0] + self.window - now

    def stats(self) -> dict[str, int]:
        return {"taken": self.taken, "refused": self.refused, "ignored": self.ignored, "banned": self.banned}
