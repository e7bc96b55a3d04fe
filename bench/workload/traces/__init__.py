"""Recorded traffic as workloads: who asked how much, when, and which prefixes were shared."""

from __future__ import annotations

from bench.workload.traces.detect import read_trace as read_trace
from bench.workload.traces.detect import trace_format as trace_format
from bench.workload.traces.options import TraceOptions as TraceOptions

__all__ = ["TraceOptions", "read_trace", "trace_format"]
