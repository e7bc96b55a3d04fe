"""What became of everything that was sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from bench.load.record import Record

__all__ = ["Failure", "Outcomes", "outcomes"]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of error."""

    kind: str
    count: int
    status: int | None
    """The first one's."""
    message: str | None
    """The first one's, as an example."""
    retry_after_s: float | None = None
    """The longest that any of them asked the client to wait; None if none did."""


class Outcomes(msgspec.Struct, frozen=True, kw_only=True):
    """sent = completed + errored + cancelled + unfinished, always."""

    sent: int
    completed: int
    errored: int
    cancelled: int
    unfinished: int
    failures: list[Failure]
    """Most frequent first."""

    @property
    def error_rate(self) -> float:
        """Errors out of those sent, 0 to 1."""
        return self.errored / self.sent if self.sent else 0.0


def outcomes(records: Sequence[Record]) -> Outcomes:
    """Count what became of `records`."""
    counts = Counter(record.outcome for record in records)
    return Outcomes(
        sent=len(records),
        completed=counts["ok"],
        errored=counts["error"],
        cancelled=counts["cancelled"],
        unfinished=counts["unfinished"],
        failures=_failures([record for record in records if record.outcome == "error"]),
    )


def _failures(failed: Sequence[Record]) -> list[Failure]:
    kinds = Counter(record.error or "unknown" for record in failed)
    first: dict[str, Record] = {}
    for record in failed:
        first.setdefault(record.error or "unknown", record)
    return [
        Failure(
            kind=kind,
            count=count,
            status=first[kind].status,
            message=first[kind].error_message,
            retry_after_s=_longest_wait(failed, kind),
        )
        for kind, count in kinds.most_common()
    ]


def _longest_wait(failed: Sequence[Record], kind: str) -> float | None:
    waits = (each.retry_after_s for each in failed if (each.error or "unknown") == kind)
    return max((wait for wait in waits if wait is not None), default=None)
