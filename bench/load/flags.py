"""The flags of `triolet bench`, by the names that GenAI-Perf and AIPerf gave them.

Where vLLM's benchmark or an older tool has another name for the same, that name is taken as well.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["load_flags"]

_F = TypeVar("_F", bound=Callable[..., Any])
_COUNT = click.IntRange(min=1)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_ABOVE_0 = click.FloatRange(min=0, min_open=True)
_NOT_NEGATIVE = click.FloatRange(min=0)

_TARGET = (
    click.option("-u", "--url", "urls", multiple=True, required=True, metavar="URL",
                 help="Where the endpoint is; give it again for several targets."),
    click.option("-m", "--model", required=True, help="The model's name."),
    click.option("--endpoint-type", type=click.Choice(["chat", "completions"]), default="chat",
                 show_default=True),
    click.option("--endpoint", metavar="PATH", help="Another path than the endpoint type's own."),
    click.option("--url-strategy", type=click.Choice(["round_robin", "session"]),
                 default="round_robin", show_default=True,
                 help="With several URLs: each request goes to the next, or a session stays."),
    click.option("--streaming/--no-streaming", default=False, show_default=True,
                 help="Ask for streams: without them there is no TTFT and no ITL."),
    click.option("--header", "-H", "headers", multiple=True, metavar="'NAME: VALUE'"),
    click.option("--api-key", envvar="BENCH_API_KEY", show_envvar=True,
                 help="Sent as a bearer token; not shown in reports."),
    click.option("--extra-inputs", multiple=True, metavar="NAME:VALUE",
                 help="One more field of the request; the value is JSON if it can be read so."),
    click.option("--use-max-completion-tokens", is_flag=True,
                 help="Say max_completion_tokens instead of max_tokens."),
    click.option("--session-header", metavar="NAME",
                 help="One more header with the session's id, beside x-correlation-id and "
                      "x-session-affinity."),
    click.option("--replica-header", metavar="NAME",
                 help="The answer's header that names the replica.  [default: x-triolet-replica "
                      "and a few others]"),
    click.option("--request-timeout-seconds", "request_timeout_s", type=_ABOVE_0, default=600,
                 show_default=True),
    click.option("--connection-reuse-strategy", type=click.Choice(["pooled", "never"]),
                 default="pooled", show_default=True),
)  # fmt: skip

_LOAD = (
    click.option("--concurrency", "--max-concurrency", metavar="N[,N...]",
                 help="Sessions at once, each beginning the next when it ends; with a request rate "
                      "the most requests in flight. Several make a sweep."),
    click.option("--request-rate", metavar="R[,R...]",
                 help="Requests per second, whatever becomes of those before. Several make a "
                      "sweep."),
    click.option("--arrival-pattern", "--request-rate-mode",
                 type=click.Choice(["poisson", "constant", "gamma"]),
                 help="How the requests of a rate arrive.  [default: poisson]"),
    click.option("--arrival-smoothness", "--vllm-burstiness", "--burstiness", type=_ABOVE_0,
                 help="Shape of gamma arrivals: below 1 bursty, above 1 smooth."),
    click.option("--fixed-schedule", is_flag=True,
                 help="Send at the recorded times of the trace or the input file."),
    click.option("--sweep", metavar="concurrency=1,2,4",
                 help="Several load points, by concurrency or request_rate."),
    click.option("--concurrency-ramp-duration", type=_ABOVE_0, metavar="SECONDS",
                 help="Begin the first sessions one after the other over so long."),
    click.option("--request-rate-ramp-duration", type=_ABOVE_0, metavar="SECONDS",
                 help="Let the rate grow over so long."),
    click.option("--request-count", "--num-prompts", type=_COUNT, help="Stop after so many."),
    click.option("--measurement-interval", "-p", type=_ABOVE_0, metavar="MS",
                 help="Stop sending after so many milliseconds."),
    click.option("--benchmark-duration", type=_ABOVE_0, metavar="SECONDS",
                 help="The same in seconds."),
    click.option("--benchmark-grace-period", type=_NOT_NEGATIVE, default=30, show_default=True,
                 metavar="SECONDS", help="Wait so long for answers after that."),
    click.option("--warmup-request-count", "--num-warmups", type=_COUNT),
    click.option("--num-warmup-sessions", type=_COUNT),
    click.option("--warmup-duration", type=_ABOVE_0, metavar="SECONDS"),
    click.option("--warmup-concurrency", type=_COUNT, help="Warm up in a closed loop."),
    click.option("--request-cancellation-rate", type=click.FloatRange(0, 100), metavar="PERCENT",
                 help="Cancel so many of the requests."),
    click.option("--request-cancellation-delay", type=_NOT_NEGATIVE, metavar="SECONDS",
                 help="So long after they were sent.  [default: 0]"),
    click.option("--num-profile-runs", type=_COUNT, default=1, show_default=True,
                 help="Measure each load point so often."),
    click.option("--random-seed", type=int, default=0, show_default=True),
    click.option("--probe-request-rate", type=_ABOVE_0, metavar="R",
                 help="Probe a health or admin path so often per second beside the load."),
    click.option("--probe-path", metavar="PATH|URL", help="Which.  [default: /healthz]"),
    click.option("--server-metrics", "metrics_urls", multiple=True, metavar="URL",
                 help="Read this metrics page before and after; several are added up."),
)  # fmt: skip

_DATA = (
    click.option("--synthetic-input-tokens-mean", "--isl", type=_COUNT, help="[default: 550]"),
    click.option("--synthetic-input-tokens-stddev", "--isl-stddev", type=_NOT_NEGATIVE),
    click.option("--output-tokens-mean", "--osl", type=_COUNT, help="[default: 128]"),
    click.option("--output-tokens-stddev", "--osl-stddev", type=_NOT_NEGATIVE),
    click.option("--seq-dist", "--sequence-distribution", metavar="'128,64:25;512,128:75'",
                 help="Lengths of prompt and answer with the percentage of each pair."),
    click.option("--num-dataset-entries", type=_COUNT, help="Sessions made up.  [default: 100]"),
    click.option("--num-sessions", "--conversation-num", type=_COUNT,
                 help="Sessions to play, once each."),
    click.option("--session-turns-mean", type=_COUNT),
    click.option("--session-turns-stddev", type=_NOT_NEGATIVE),
    click.option("--session-turn-delay-mean", type=_NOT_NEGATIVE, metavar="MS",
                 help="Think time between an answer and the next turn."),
    click.option("--session-turn-delay-stddev", type=_NOT_NEGATIVE, metavar="MS"),
    click.option("--session-delay-ratio", type=_NOT_NEGATIVE,
                 help="Multiply every think time."),
    click.option("--num-prefix-prompts", type=click.IntRange(min=0),
                 help="System prompts to draw from."),
    click.option("--prefix-prompt-length", type=click.IntRange(min=0), metavar="TOKENS"),
    click.option("--shared-system-prompt-length", type=click.IntRange(min=0), metavar="TOKENS"),
    click.option("--user-context-prompt-length", type=click.IntRange(min=0), metavar="TOKENS"),
    click.option("--input-file", type=_FILE, help="Recorded prompts: JSON lines or text."),
    click.option("--trace", type=_FILE, help="A trace; its format is found out."),
    click.option("--trace-speedup", type=_ABOVE_0, help="Replay it so many times faster."),
    click.option("--trace-format", metavar="NAME", help="Instead of finding it out."),
    click.option("--workload", metavar="NAME", help="A workload of `triolet simulate`, by name."),
    click.option("--bad-lines", type=click.Choice(["fail", "skip"]), default="fail",
                 show_default=True, help="What a malformed line of a file does."),
    click.option("--tokenizer", default="builtin", show_default=True, metavar="builtin|FILE",
                 help="How the client counts tokens: a tokenizer.json needs `tokenizers`."),
)  # fmt: skip

_REPORT = (
    click.option("--goodput", metavar="'NAME:MS ...'",
                 help="Objectives, as 'time_to_first_token:200 inter_token_latency:30'."),
    click.option("--failed-request-threshold", type=click.FloatRange(0, 1), metavar="SHARE",
                 help="Exit with 1 if more than this share of the requests failed."),
    click.option("--artifact-dir", type=click.Path(file_okay=False, path_type=Path),
                 help="[default: artifacts/<model>-openai-<endpoint>-<load>]"),
    click.option("--profile-export-prefix", "--profile-export-file", default="profile_export",
                 show_default=True),
    click.option("--name", default="", help="What the report calls this run."),
    click.option("--ui", type=click.Choice(["auto", "none"]), default="auto", show_default=True,
                 help="The live line; without a terminal there is none."),
)  # fmt: skip


def load_flags(command: _F) -> _F:
    """Give `command` every flag of a load run."""
    for flag in reversed((*_TARGET, *_LOAD, *_DATA, *_REPORT)):
        command = flag(command)
    return command
