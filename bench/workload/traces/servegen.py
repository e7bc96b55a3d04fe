"""Samples of ServeGen's clients: many tenants, a few of whom send most of the traffic.

CSV with `t` in seconds, `client`, `input_tokens`, `output_tokens`, as drawn from the client
profiles of github.com/alibaba/ServeGen (arXiv 2505.09999).
"""

from __future__ import annotations

from collections.abc import Callable

from bench.workload.lines import Source
from bench.workload.model import Segment, Workload, segment_key
from bench.workload.traces.columns import column_reader, positive
from bench.workload.traces.options import TraceOptions
from bench.workload.traces.timed import Timed, timed_sessions

__all__ = ["SERVEGEN_COLUMNS", "servegen"]

SERVEGEN_COLUMNS = ("t", "client", "input_tokens", "output_tokens")


def servegen(source: Source, options: TraceOptions | None = None) -> Workload:
    """The requests of a ServeGen sample, each with its client as tenant; no shared prefixes."""
    chosen = options or TraceOptions()
    return Workload(
        name="servegen",
        sessions=timed_sessions(source, lambda: _parser(chosen), chosen),
        about=f"Requests of the tenants in {source.name}, at the trace's times.",
    )


def _parser(options: TraceOptions) -> Callable[[bytes], Timed | None]:
    values = column_reader(SERVEGEN_COLUMNS)
    row = 0

    def parse(line: bytes) -> Timed | None:
        nonlocal row
        row += 1
        cells = values(line)
        if cells is None:
            return None
        at_s, client, asked, answered = cells
        prompt = Segment(
            segment_key("row", options.namespace, row), positive("input_tokens", asked)
        )
        return Timed(
            float(at_s), (prompt,), positive("output_tokens", answered), f"client-{client}"
        )

    return parse
