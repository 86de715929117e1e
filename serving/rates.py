"""Requests or tokens a minute, as a provider counts them: never more within any minute, however they come.

Every request is booked with what it may cost at most before it is sent; what it did cost is put in its place when that
is known. Between them the bookings of a minute stay below the rate. They are spread over the minute, a quarter of a
second's worth at once, so that an endpoint that counts by the second is not overrun either.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW = 60.5
"""Seconds a booking counts: a minute, and half a second for what the way to the endpoint takes."""
LOOK = 0.05
"""Seconds between two looks while one waits: a correction may have made room."""


@dataclass(slots=True)
class Booking:
    """One request's share of the minute it was sent in."""

    at: float
    amount: float
    counts: bool = True


class PerMinute:
    """At most `rate` within any 60 s. What a booking turns out to exceed its estimate by is the only excess."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self._clock = rate, clock
        self._booked: deque[Booking] = deque()
        self._sum = 0.0
        self._level = self._burst = max(1.0, rate / 240)
        self._since = clock()
        self._turn = asyncio.Lock()

    async def take(self, amount: float) -> Booking:
        """Wait until `amount` may be sent; first come, first served. More than a whole minute's rate counts as that."""
        amount = min(amount, self.rate)
        async with self._turn:
            while (wait := self._wait(amount)) > 0:
                await asyncio.sleep(min(wait, LOOK))
            booking = Booking(self._clock(), amount)
            self._booked.append(booking)
            self._sum += amount
            self._level -= amount
        return booking

    def correct(self, booking: Booking, amount: float) -> None:
        """What a request did cost."""
        less, booking.amount = booking.amount - amount, amount
        self._level = min(self._burst, self._level + less)
        if booking.counts:
            self._sum -= less

    def _wait(self, amount: float) -> float:
        """Seconds until `amount` fits, as far as is known now; 0 or less: it does."""
        now = self._clock()
        while self._booked and self._booked[0].at + WINDOW <= now:
            old = self._booked.popleft()
            old.counts = False
            self._sum -= old.amount
        self._level = min(self._burst, self._level + (now - self._since) * self.rate / 60)
        self._since = now
        if self._booked and self._sum + amount > self.rate + 1e-6:
            return self._booked[0].at + WINDOW - now
        return (min(amount, self._burst) - self._level) * 60 / self.rate - 1e-6
