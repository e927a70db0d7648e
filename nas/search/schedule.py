"""When a candidate is asked for: in which order trials are told, and how many of them before.

The order decides what an algorithm knows when it proposes, so a search is replayed by it.

Batch mode, `Schedule`, tells trials in the order of their numbers. What is proposed then depends on
no clock, and the search is the same for any number of workers; but behind a slow candidate workers
run dry.

Asynchronous mode tells trials as they end, and asks for a candidate as soon as a worker is free
(the steady state of ASHA: Li et al., "A system for massively parallel hyperparameter tuning", MLSys
2020). What is proposed depends on which candidate ended first, which the ledger records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from nas.core.trial import RunSegment, Trial


class TrialRecord(Protocol):
    """Where a search is recorded; the ledger of `nas.results`."""

    def trials(self) -> list[Trial]:
        """Return all recorded trials."""

    def append(self, *trials: Trial) -> None:
        """Record trials durably, all of them or none."""

    def segments(self) -> list[RunSegment]:
        """Return the segments, in their order."""

    def set_segments(self, segments: Sequence[RunSegment]) -> None:
        """Record the segments durably, in place of those before."""


@dataclass
class Schedule:
    """Candidate `k` is asked for once the trials `0 .. k - lookahead` have been told, no others.

    Attributes:
        lookahead: Candidates that are pending at a time.
    """

    lookahead: int
    _segments: list[RunSegment] = field(init=False)

    def __post_init__(self) -> None:
        """Begin with one segment, which is the whole search."""
        self._segments = [RunSegment(asked=0, told=0, lookahead=self.lookahead)]

    def begin(self, record: TrialRecord, trials: Sequence[Trial]) -> None:
        """Take note that a search begins, or goes on from recorded trials."""

    def due(self, number: int) -> int:
        """Return how many trials are told, at the least, before candidate `number` is asked for."""
        segment = next(segment for segment in reversed(self._segments) if segment.asked <= number)
        return max(segment.told, number - segment.lookahead + 1)

    def following(self, told: int, waiting: Mapping[int, Trial]) -> list[Trial]:
        """Return the trials that are told next, all at once; none where they have not ended.

        Args:
            told: Number of trials that have been told.
            waiting: Trials that have ended and have not been told, by number.
        """
        return [waiting[told]] if told in waiting else []


@dataclass
class Asynchronous(Schedule):
    """A candidate is asked for when a worker is free and all that has ended has been told.

    Every run of a search begins a new segment after the last candidate that is recorded. Candidates
    before it that were pending are asked for as they were the first time, by the rule of their
    own segment; later ones are asked for anew, with everything known that has ended since.

    Attributes:
        lookahead: Candidates that are pending at a time; one for each worker keeps all busy.
    """

    def begin(self, record: TrialRecord, trials: Sequence[Trial]) -> None:
        asked = 1 + max((trial.number for trial in trials), default=-1)
        # Nothing is left of a segment of which no candidate was recorded.
        self._segments = [
            *(segment for segment in record.segments() if segment.asked < asked),
            RunSegment(asked=asked, told=len(trials), lookahead=self.lookahead),
        ]
        record.set_segments(self._segments)

    def following(self, told: int, waiting: Mapping[int, Trial]) -> list[Trial]:
        del told
        first_s = min((trial.ended_s for trial in waiting.values()), default=0.0)
        return [waiting[n] for n in sorted(waiting) if waiting[n].ended_s == first_s]
