"""One limit: told by the user, said by the endpoint, or found by what the endpoint refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchrun.pace.window import Window

#: So much of a limit is used: what leaves evenly here arrives a little unevenly there.
_USED = 0.999
#: A limit that was found is tried a little higher after so long, and each time by twice as much more.
_RAISE_S = 15.0
_FIRST_RAISE = 0.01
_LARGEST_RAISE = 0.25
#: In a window it shows only when the window is full whether more is taken.
_WINDOW_RAISE_S = 65.0
_BINDS_S = 1.0
_UNCONFIRMED_S = 10.0
#: While nothing is known of a rate but that it is too low, it grows by this factor.
_STEEP_S = 1.5
_STEEP = 2.0
#: Refusals that come so soon after a cut are of requests that had been sent before it.
_HERD_S = 3.0
_FIRST_TRIAL_S = 1.0
_LONGEST_TRIAL_S = 5.0
#: Trials are no more than a fiftieth of what goes: this over the number of requests in a window is the time between.
_TRIALS_S = 3000.0
#: Refused with less than this share of the limit used: it is not this limit.
_SURELY_NOT = 0.9
#: Who waited for the window is followed sooner by so much of its length at most.
_MAKES_UP = 0.02
#: An amount is taken for larger by so many times the usual error, which follows so fast.
_SURE, _FOLLOWS = 3.0, 0.05
_CUT, _STEEP_CUT = 0.95, 0.6
_CUT_S = 10.0
#: Where less than this share of a rate was answered, that is the rate.
_FAR_BELOW = 0.5
#: A rate that is refused again so soon after it was cut is far too high.
_FAR_OFF_S = 3.0
#: So many trials that were taken show that there is no window, however small they were.
_TRIALS_TAKEN = 6
#: With less than this in the last minute a refusal says nothing about how much a minute may have.
_FEW = 10.0
#: Below a rate that was refused it grows by this factor.
_CLIMB = 1.1
#: A rate that is refused so often in a row, however low, is no rate but a window that is full.
_WINDOW_AFTER = 4


@dataclass(slots=True)
class Entry:
    """What was let go: the amount, where the window has it, and what was in the window before it."""

    step: int
    amount: float
    #: What it was when it was let go.
    wanted: float
    #: It was let go although the window was full, to see whether there is such a window at all.
    is_trial: bool = False
    #: It had to wait for this limit.
    was_held: bool = False


class Limit:
    """So much in every window of a length, spread evenly: there is never a burst, neither at the start nor later.

    What is let go is paid for before the next may go (a token bucket that holds nothing), and no window holds more
    than the limit, however large a single amount is. `told` is what the user allows, `found` what an earlier run
    found. Without either everything may go, until the endpoint refuses: then what it took in the last window is the
    limit. Whether there is such a window is tried by single requests; if one is taken although the window is full,
    the limit is a rate. What was found is tried a little higher now and then, and cut where that is refused.

    `offset` is added to the times given, to get those of the window's own clock.
    """

    def __init__(
        self, window: Window, told: float | None, found: float | None = None, *, spread: bool = True,
        offset: float = 0.0, is_of_tokens: bool = False,
    ) -> None:  # fmt: skip
        self._window = window
        self._told = told
        self._spread = spread
        self._offset = offset
        self.is_of_tokens = is_of_tokens
        #: What may go in a window now; None as long as nobody knows.
        self.most = min((one for one in (told, found) if one), default=None)
        #: Told, or said by the endpoint itself: not tried any higher.
        self.is_exact = told is not None and self.most == told
        #: Whether it is a window that is full or not; else it is a rate alone.
        self._is_window = found is None or told is not None
        #: A window that was full for as long as it lasts, and nothing was refused.
        self._is_confirmed = False
        #: Whether anything was answered since it was found.
        self._is_answered = False
        #: Found by an earlier run, and not by this one.
        self._is_old = found is not None and not self.is_exact
        self._is_steep = False
        #: The rate at which it was refused last, and how often in a row since an answer.
        self._refused_at = 0.0
        self._refusals = 0
        #: What was answered since it was set, and how much that was.
        self._set_at: float | None = None
        self._answers, self._answered = 0, 0.0
        self._unsure = 0.0
        self._trials_taken = 0
        #: What it was before it was tried higher.
        self._lower = self.most or 0.0
        self._longest_trial_s = _LONGEST_TRIAL_S
        self._is_by_header = False
        self._header_most = 0.0
        self._raise = _FIRST_RAISE
        #: By how much an amount is usually not what it turns out to be.
        self._off_by = 0.0
        self._changed_at = self._cut_at = self._bound_at = float("-inf")
        #: Whether the one that is next was held up.
        self._holds = False
        self._trial_at: float | None = None
        self._trial_wait_s = _FIRST_TRIAL_S

    def mend(self, now: float) -> None:
        """Make good what an earlier run left in the window, if it cannot be."""
        self._window.mend(now + self._offset)

    @property
    def is_told(self) -> bool:
        """Tell whether the user told a limit."""
        return self._told is not None

    def tell(self, now: float, told: float) -> None:
        """Let this be what the user allows, from now on."""
        self._told = self.most = told
        self.is_exact = self._is_window = True
        self._is_old = self._is_steep = False
        self._trial_at = None
        self._window.free_at = min(self._window.free_at, now + self._offset)

    def binds(self, now: float) -> bool:
        """Tell whether it held somebody up a moment ago."""
        return self.most is not None and now - self._bound_at <= _BINDS_S

    def rate(self, now: float) -> float:
        """Give how many a second were let go lately."""
        self._window.forget(now + self._offset)
        return self._window.total / max(self._window.since(now + self._offset), 1.0)

    @property
    def found(self) -> float | None:
        """What was found or said, and not told; None as long as it is not certain."""
        is_certain = self._is_confirmed or self.is_exact or self._is_by_header or self._refused_at > 0.0
        return self.most if is_certain and self.most != self._told else None

    def earliest(self, now: float, amount: float) -> float:
        """Give the first time at which an amount may go. Times asked for never go back."""
        self._window.forget(now + self._offset)
        most = self.most
        if most is None:
            return now
        window = self._window
        at = max(now, window.free_at - self._offset) if self._spread else now
        if self._is_window:
            wanted = min(amount + _SURE * self._off_by, most)
            at = max(at, window.room_at(now + self._offset, wanted, most) - self._offset)
            if self._trial_at is not None:
                at = min(at, max(now, self._trial_at))
        if at > now:
            self._bound_at = now
            self._holds = True
        return at

    def take(self, now: float, due: float, amount: float) -> Entry:
        """Let an amount go that was `due` a little earlier; what is late is caught up with."""
        window = self._window
        is_trial = False
        was_held, self._holds = self._holds, False
        if was_held:
            self._bound_at = now
        if self.most is not None:
            if self._trial_at is not None and self._is_window:
                if window.total + min(amount, self.most) > self.most * (1 + 1e-9):
                    is_trial = True
                    self._trial_at = None
                elif window.total + amount <= _SURELY_NOT * self.most:
                    self._settle_trials()  # there is room again, as there should be
            if self._spread:
                takes_s = amount * self._interval_s
                # Where the window made a request of many tokens wait, the next one may make up for it.
                behind_s = 0.0
                if self.is_of_tokens and self._is_window:
                    behind_s = min(takes_s, _MAKES_UP * window.length_s)
                window.free_at = max(window.free_at, due + self._offset - behind_s) + takes_s
        return Entry(window.add(now + self._offset, amount), amount, amount, is_trial, was_held)

    def count(self, now: float, amount: float) -> None:
        """Count what goes beside all order."""
        self._window.add(now + self._offset, amount)

    def lost(self, now: float, entry: Entry) -> bool:
        """Take note of an end that is neither an answer nor a refusal; True if it was a trial: another one goes."""
        if not entry.is_trial:
            return False
        entry.is_trial = False
        self._trial_at = now + self._trial_wait_s
        return True

    def settle(self, entry: Entry, amount: float) -> None:
        """Correct an amount to what it really was."""
        change = amount - entry.amount
        if not change:
            self._off_by -= self._off_by * _FOLLOWS
            return
        entry.amount = amount
        if amount:
            self._off_by += (abs(change) - self._off_by) * _FOLLOWS
        self._window.change(entry.step, change)
        if self.most is not None and self._spread:
            self._window.free_at += change * self._interval_s

    def accepted(self, now: float, entry: Entry) -> bool:
        """Take note that a request was answered; True if the limit is not what it was thought to be."""
        self._refusals = 0
        self._is_answered = True
        self._answers += 1
        self._answered += entry.amount
        if entry.is_trial:
            entry.is_trial = False
            self._trial_taken(now)
            return True
        if self.is_exact or self.most is None or not (entry.was_held or self.binds(now)):
            return False
        if self._is_steep:
            if now - self._changed_at >= _STEEP_S:
                self._set(now, self.most * _STEEP)
        elif not self._is_window and self.most * _CLIMB < self._refused_at * _CUT:
            if now - self._changed_at >= _STEEP_S:
                self._set(now, self.most * _CLIMB)
        elif self.is_told or self._is_old or (self._is_window and not self._is_confirmed):
            # Nobody has seen lately that this is a limit.
            if now - self._changed_at >= (_WINDOW_RAISE_S if self._is_window else _UNCONFIRMED_S):
                lower = self.most
                self._set(now, self.most * (1 + _LARGEST_RAISE))
                self._lower = lower
        elif now - self._changed_at >= (_WINDOW_RAISE_S if self._is_window else _RAISE_S):
            self._set(now, self.most * (1 + self._raise))
            self._raise = min(2 * self._raise, _LARGEST_RAISE if self._is_window else _STEEP - 1)
        return False

    def refused(
        self, now: float, entry: Entry, sent_at: float, said: int | None, *, is_named: bool, asks_to_wait: bool
    ) -> bool:  # fmt: skip
        """Take note that a request was refused; False if this limit cannot have been why.

        `said` is the limit as the endpoint gave it, `is_named` whether it named this resource at all,
        `asks_to_wait` whether it said for how long. `entry` is settled to nothing first, where the endpoint counts no
        refused requests.
        """
        self._window.forget(now + self._offset)
        used = self._window.total
        if said is not None and said > 0:
            self._set(now, float(said))
            self.is_exact = self._is_window = True
            self._settle_trials()
            self._cut_at = now
            return True
        if entry.is_trial:
            entry.is_trial = False
            self._trial_wait_s = min(2 * self._trial_wait_s, self._longest_trial_s)
            self._trial_at = now + self._trial_wait_s
        elif sent_at < self._cut_at:
            # What was on its way then had been counted as taken.
            if self._is_window and self.most is not None and now - self._cut_at < _HERD_S and not self.is_exact:
                self.most = max(1.0, min(self.most, used))
        elif self.most is None:
            if used < _FEW * entry.wanted:
                self._become_rate(now, _FEW * entry.wanted)
            else:
                self._become_window(now, used, entry.wanted)
        elif self._is_window and not self._is_confirmed and not is_named and used < _SURELY_NOT * self._lower:
            return False
        else:
            self._cut(now, self.most, used, entry.wanted, asks_to_wait=asks_to_wait)
        return True

    def uncount(self, entry: Entry) -> None:
        """Take back what was let go and did not count; its turn is gone."""
        self._window.change(entry.step, -entry.amount)
        entry.amount = 0.0

    def said_by_header(self, now: float, most: float, remaining: float | None) -> bool:
        """Take note of the limit that an answer names; True if that is news.

        What the endpoint says is left counts too: others may use the same account.
        """
        is_news = self.most is None or (not self._is_by_header and not self.is_exact)
        if is_news or (self._is_by_header and most != self._header_most):
            self._is_by_header, self._header_most = True, most
            self._set(now, most)
            self._is_window = self._is_confirmed = True
            self._settle_trials()
        if remaining is not None and self.most is not None and self._is_window and self._is_by_header:
            self._window.forget(now + self._offset)
            others = min(self.most, most) - remaining - self._window.total
            if others > 0:
                self._window.add(now + self._offset, others)
        return is_news

    def come_back(self, at: float) -> None:
        """Let one try at a time that the endpoint named, though the window is full then: it may be none."""
        if self._is_window and not self.is_told and (self._is_by_header or self.is_exact):
            self._trial_at = at

    def hold(self, now: float) -> None:
        """Take note of a lone refusal while it held others up: it is not to be raised for a while."""
        self._raise = _FIRST_RAISE
        self._changed_at = now

    def drop(self) -> None:
        """Forget what was found if nothing has confirmed it: it was something else."""
        if self._told is None and not self._is_confirmed and not self.is_exact:
            self.most = None
            self.is_exact = False
            self._is_window = True
            self._settle_trials()

    @property
    def _interval_s(self) -> float:
        """The time that one of the resource takes."""
        return self._window.length_s / ((self.most or 1.0) * _USED)

    def _set(self, now: float, most: float) -> None:
        self.most = max(1.0, min(most, self._told or float("inf"), self._header_most or float("inf")))
        self.is_exact = self.most == self._told
        self._lower = self.most
        self._changed_at = self._set_at = now
        self._answers, self._answered = 0, 0.0
        self._window.free_at = min(self._window.free_at, now + self._offset + self._interval_s)

    def _cut(self, now: float, most: float, used: float, wanted: float, *, asks_to_wait: bool) -> None:
        turn_s = wanted * self._interval_s
        if self._is_steep and turn_s > _STEEP_S and now - self._changed_at < turn_s:
            return  # it was let go before its turn at this rate came, which was a guess
        self._refusals += 1
        if not self._is_window and self._refusals >= _WINDOW_AFTER:
            self._become_window(now, used, wanted)
            return
        refused_at = most
        if self._is_window and used >= _SURELY_NOT * min(most, self._lower):
            lower = min(most, used)
            self._is_confirmed = self._is_answered
        elif self._is_window and not self._is_by_header:
            # Others use the account, or it is no limit at all: a little less, and not again at once.
            lower = most * _CUT if now - self._cut_at >= _CUT_S else most
        else:
            self._is_window = False  # what others use is in the headers, so it is kept by less than a minute
            self._settle_trials()
            is_far_off = self._is_steep or now - self._cut_at < _FAR_OFF_S
            lower = max(most * (_STEEP_CUT if is_far_off else _CUT), min(used, most) / 2)
            answered = self._answered_rate(now) if asks_to_wait else None
            if answered is not None and answered < _FAR_BELOW * most:  # pauses hold all up, not this
                refused_at = answered * _CLIMB
                lower = min(lower, refused_at)
        self._refused_at = refused_at
        self._is_old = False
        self._is_steep = False
        self._set(now, lower)
        self._raise = _FIRST_RAISE
        if lower < most:  # else the next cut would move away with every refusal
            self._cut_at = now

    def _answered_rate(self, now: float) -> float | None:
        """Give what was answered in a window's length since it was set; None where that was too little to tell."""
        if self._set_at is None or self._answers < _FEW or now <= self._set_at:
            return None
        return self._answered / (now - self._set_at) * self._window.length_s

    def _become_window(self, now: float, used: float, wanted: float) -> None:
        """Take what was let go in the last window as all that it may have; it may be a little more than that."""
        self._set(now, max(1.0, used))
        self._is_answered = False
        self._unsure = wanted
        self._trials_taken = 0
        self._longest_trial_s = min(max(_LONGEST_TRIAL_S, _TRIALS_S * wanted / max(used, wanted)), _TRIALS_S / 200)
        self._is_window, self._is_steep, self._is_confirmed = True, False, False
        self._cut_at = now
        self._refusals = 0
        self._trial_wait_s = _FIRST_TRIAL_S
        self._trial_at = now + self._trial_wait_s

    def _trial_taken(self, now: float) -> None:
        """What was let go was taken, although the window was full. It was larger than it seemed, or is none."""
        self._window.forget(now + self._offset)
        used = self._window.total
        self._trials_taken += 1
        if self.most is not None and used < self.most + self._unsure and self._trials_taken < _TRIALS_TAKEN:
            self._unsure -= max(0.0, used - self.most)
            self._set(now, max(used, self.most))
            self._trial_at = now + self._trial_wait_s
            return
        if self._is_by_header or self.is_exact:
            self._is_window = False  # as much as was said, but by no window
            self._settle_trials()
            return
        # What was let go over the time that it took is the rate, to begin with.
        self._become_rate(now, self.rate(now) * self._window.length_s)

    def _become_rate(self, now: float, most: float) -> None:
        self._is_window, self._is_steep = False, True
        self._refused_at = 0.0
        self._settle_trials()
        self._set(now, most)
        self._cut_at = now

    def _settle_trials(self) -> None:
        self._trial_at = None
        self._trial_wait_s = _FIRST_TRIAL_S


class Ramp:
    """A slow start: few requests a second at first, and twice as many every few seconds, until nothing is held up."""

    _DOUBLES_S = 5.0
    _ENDS_AT = 2000.0

    def __init__(self, now: float, per_second: float) -> None:
        self._began_at, self._first = now, max(per_second, 0.1)
        self._free_at = now

    def is_over(self, now: float) -> bool:
        """Tell whether it holds nobody up any more."""
        return self._rate(now) >= self._ENDS_AT

    def earliest(self, now: float) -> float:
        """Give when the next request may go."""
        return max(now, self._free_at)

    def take(self, now: float) -> None:
        """Let one go."""
        self._free_at = max(self._free_at, now) + 1.0 / self._rate(now)

    def _rate(self, now: float) -> float:
        return self._first * float(2 ** min((now - self._began_at) / self._DOUBLES_S, 60.0))
