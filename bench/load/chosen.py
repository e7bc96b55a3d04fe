"""From flags to what is to be run: plans and a workload. Says which flags contradict each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import click
import msgspec

from bench.load.plan import Closed, Limits, Loop, Plan, Rated, Scheduled
from bench.report.goodput import parse_goodput
from bench.workload.input_file import InputFileOptions, input_file
from bench.workload.lines import BadLineCount
from bench.workload.model import Session, Workload
from bench.workload.named import WorkloadOptions, named_workload
from bench.workload.synthetic import SyntheticOptions, synthetic
from bench.workload.text import Tokenizer, load_tokenizer
from bench.workload.traces import TraceOptions, read_trace

__all__ = ["Chosen", "choose", "extra_inputs"]

Given = Mapping[str, Any]

_SYNTHETIC: Final = frozenset(SyntheticOptions.__struct_fields__) - {"seed"}
_ALL_DATA: Final = {"num_sessions", "session_delay_ratio"}
"""What limits or paces recorded sessions as well."""

_NEEDS: Final = (
    ("probe_path", "probe_request_rate"),
    ("trace_speedup", "trace"),
    ("trace_format", "trace"),
    ("request_cancellation_delay", "request_cancellation_rate"),
    ("request_rate_ramp_duration", "request_rate"),
    ("arrival_pattern", "request_rate"),
)
_APART: Final = (
    ("input_file", "trace"),
    ("input_file", "workload"),
    ("trace", "workload"),
    ("fixed_schedule", "request_rate"),
    ("fixed_schedule", "concurrency"),
    ("sweep", "fixed_schedule"),
    ("measurement_interval", "benchmark_duration"),
    ("concurrency_ramp_duration", "request_rate"),
    ("concurrency_ramp_duration", "fixed_schedule"),
    ("seq_dist", "synthetic_input_tokens_mean"),
    ("seq_dist", "output_tokens_mean"),
)


class Chosen(NamedTuple):
    """What the flags ask for."""

    plans: list[Plan]
    """One for each load point, in the order given."""
    workload: Workload
    tokenizer: Tokenizer
    bad_lines: BadLineCount


def choose(given: Given) -> Chosen:
    """Read the flags, by parameter name. Raises click.UsageError for those that cannot be."""
    _check_pairs(given)
    bad_lines = BadLineCount()
    try:
        tokenizer = load_tokenizer(given["tokenizer"])
        workload = _workload(given, bad_lines, tokenizer)
        plan = _plan(given)
        loops = _loops(given, workload)
        plans = [msgspec.structs.replace(plan, loop=loop) for loop in loops]
    except click.UsageError:
        raise
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from error
    return Chosen(plans, workload, tokenizer, bad_lines)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check_pairs(given: Given) -> None:
    for name, needed in _NEEDS:
        swept = needed == "request_rate" and (given["sweep"] or "").startswith("request")
        if given[name] and not given[needed] and not swept:
            raise click.UsageError(f"{_flag(name)} needs {_flag(needed)}")
    for one, other in _APART:
        if given[one] and given[other]:
            raise click.UsageError(f"{_flag(one)} and {_flag(other)} contradict each other")
    if given["arrival_smoothness"] and given["arrival_pattern"] != "gamma":
        raise click.UsageError("--arrival-smoothness needs --arrival-pattern gamma")
    for source in ("input_file", "trace", "workload"):
        for name in sorted(_SYNTHETIC - _ALL_DATA):
            if given[source] and given[name] is not None:
                if source == "input_file" and name == "output_tokens_mean":
                    continue  # for lines that do not say it
                raise click.UsageError(
                    f"{_flag(name)} makes prompts up, {_flag(source)} brings them along: "
                    "give one of them"
                )


# Data


def _workload(given: Given, bad_lines: BadLineCount, tokenizer: Tokenizer) -> Workload:
    if given["input_file"] is not None:
        options = _named(InputFileOptions, given, limit="num_sessions", bad_lines="bad_lines",
                         output_tokens="output_tokens_mean",
                         session_delay_ratio="session_delay_ratio")  # fmt: skip
        options = msgspec.structs.replace(options, on_bad_line=bad_lines)
        return _read_through(input_file(given["input_file"], options, tokenizer))
    if given["trace"] is not None:
        replay = _named(TraceOptions, given, speedup="trace_speedup", limit="num_sessions",
                        bad_lines="bad_lines", seed="random_seed")  # fmt: skip
        replay = msgspec.structs.replace(replay, on_bad_line=bad_lines)
        return _read_through(read_trace(given["trace"], replay, given["trace_format"]))
    if given["workload"] is not None:
        return named_workload(
            given["workload"],
            WorkloadOptions(replicas=len(given["urls"]), seed=given["random_seed"]),
        )
    fields = {name: name for name in _SYNTHETIC}
    return synthetic(_named(SyntheticOptions, given, seed="random_seed", **fields))


def _named(kind: type[Any], given: Given, **flags: str) -> Any:
    """A struct of options from the flags that were given; the others keep its defaults."""
    values = {field: given[flag] for field, flag in flags.items()}
    return kind(**{field: value for field, value in values.items() if value is not None})


def _read_through(workload: Workload) -> Workload:
    """Find malformed lines before the load begins and not in its midst."""
    if not any(True for _ in workload.sessions):
        raise ValueError(f"{workload.name}: no request in it")
    for _ in workload.sessions:
        pass
    return workload


# Load


def _loops(given: Given, workload: Workload) -> list[Loop]:
    kind, points = _sweep(given)
    if kind == "request_rate":
        return [
            Rated(
                rate=rate,
                arrival=given["arrival_pattern"] or "poisson",
                smoothness=given["arrival_smoothness"] or 1.0,
                ramp_s=given["request_rate_ramp_duration"] or 0.0,
            )
            for rate in points
        ]
    if kind == "concurrency":
        return [_closed(given, point) for point in points]
    return [_own_loop(given, workload)]


def _closed(given: Given, concurrency: float) -> Closed:
    if concurrency != int(concurrency):
        raise click.UsageError(f"concurrency {concurrency:g} is not a whole number")
    return Closed(concurrency=int(concurrency), ramp_s=given["concurrency_ramp_duration"] or 0.0)


def _own_loop(given: Given, workload: Workload) -> Loop:
    """Without a load: that of the workload, else one session at a time."""
    first: Session | None = next(iter(workload.sessions), None)
    timed = first is not None and first.turns[0].due_s is not None
    if given["fixed_schedule"] or (timed and not workload.concurrency):
        if not timed:
            raise click.UsageError("--fixed-schedule needs a trace or an input file with times")
        return Scheduled()
    return _closed(given, workload.concurrency or 1)


def _sweep(given: Given) -> tuple[str | None, list[float]]:
    """By what the load points differ, and their values."""
    if given["sweep"]:
        name, _, values = given["sweep"].partition("=")
        name = name.replace("-", "_")
        if name not in ("concurrency", "request_rate"):
            raise click.UsageError(f"--sweep {given['sweep']}: write concurrency=1,2,4")
        if given[name]:
            raise click.UsageError(f"--sweep and {_flag(name)} contradict each other")
        return name, _numbers("sweep", values)
    if given["request_rate"]:
        return "request_rate", _numbers("request_rate", given["request_rate"])
    if given["concurrency"]:
        return "concurrency", _numbers("concurrency", given["concurrency"])
    return None, []


def _numbers(flag: str, text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(number > 0 for number in numbers):
        raise click.UsageError(f"{_flag(flag)} {text!r}: expected numbers above 0, as 1,2,4")
    return numbers


def _plan(given: Given) -> Plan:
    streaming, goodput = given["streaming"], parse_goodput(given["goodput"] or "request_latency:1")
    for name in goodput if given["goodput"] and not streaming else ():
        if name not in ("request_latency", "effective_request_latency"):
            raise click.UsageError(f"--goodput {name} needs --streaming")
    optional = {
        "cancellation_rate": (given["request_cancellation_rate"] or 0) / 100 or None,
        "cancellation_delay_s": given["request_cancellation_delay"],
        "probe_path": given["probe_path"],
        "max_in_flight": _cap(given),
        # Made-up and recorded prompts have their think times multiplied as they are read.
        "delay_ratio": given["session_delay_ratio"]
        if given["trace"] or given["workload"]
        else None,
        "endpoint": given["endpoint"] and "/" + given["endpoint"].lstrip("/"),
    }
    return Plan(
        urls=tuple(url if "://" in url else f"http://{url}" for url in given["urls"]),
        model=given["model"],
        loop=Closed(concurrency=1),
        endpoint_type=given["endpoint_type"],
        url_strategy=given["url_strategy"],
        streaming=streaming,
        headers=tuple(_headers(given)),
        extra_inputs=extra_inputs(given["extra_inputs"]),
        max_tokens_field=(
            "max_completion_tokens" if given["use_max_completion_tokens"] else "max_tokens"
        ),
        session_header=given["session_header"],
        replica_header=given["replica_header"],
        limits=_limits(given),
        grace_s=given["benchmark_grace_period"],
        warmup=Limits(
            requests=given["warmup_request_count"],
            sessions=given["num_warmup_sessions"],
            duration_s=given["warmup_duration"],
        ),
        warmup_concurrency=given["warmup_concurrency"],
        request_timeout_s=given["request_timeout_s"],
        keep_connections=given["connection_reuse_strategy"] == "pooled",
        probe_rate=given["probe_request_rate"],
        metrics_urls=tuple(
            url if "://" in url else f"http://{url}" for url in given["metrics_urls"]
        ),
        seed=given["random_seed"],
        goodput=goodput if given["goodput"] else {},
        **{name: value for name, value in optional.items() if value is not None},
    )


def _cap(given: Given) -> int | None:
    """Concurrency beside a request rate bounds the requests in flight, as AIPerf has it."""
    rated = given["request_rate"] or (given["sweep"] or "").startswith("request")
    if not (rated and given["concurrency"]):
        return None
    caps = _numbers("concurrency", given["concurrency"])
    if len(caps) != 1:
        raise click.UsageError("--concurrency with --request-rate: one number, the cap in flight")
    return int(caps[0])


def _limits(given: Given) -> Limits:
    interval_ms = given["measurement_interval"]
    return Limits(
        requests=given["request_count"],
        sessions=given["num_sessions"],
        duration_s=interval_ms / 1000 if interval_ms else given["benchmark_duration"],
    )


def _headers(given: Given) -> Iterable[tuple[str, str]]:
    for header in given["headers"]:
        name, colon, value = header.partition(":")
        if not colon:
            raise click.UsageError(f"--header {name!r}: write 'Name: value'")
        yield name.strip(), value.strip()
    if given["api_key"]:
        yield "authorization", f"Bearer {given['api_key']}"


def extra_inputs(pairs: Sequence[str]) -> dict[str, Any]:
    """Fields of a request from `name:value` pairs. Raises click.UsageError for one that is none."""
    fields: dict[str, Any] = {}
    for pair in pairs:
        if pair.lstrip().startswith("{"):
            fields |= msgspec.json.decode(pair, type=dict[str, Any])
            continue
        name, colon, text = pair.partition(":")
        if not colon:
            raise click.UsageError(f"--extra-inputs {pair!r}: write name:value")
        try:
            fields[name.strip()] = msgspec.json.decode(text)
        except msgspec.DecodeError:
            fields[name.strip()] = text
    return fields
