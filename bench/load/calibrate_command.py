"""`triolet bench calibrate`: a replica's rates, and the simulator profile they make."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bench.load.calibrate import Trials
    from bench.load.plan import Plan
    from bench.load.rates import Cold, Decoding, Measured

__all__ = ["calibrate"]


@click.command()
@click.option("-u", "--url", required=True, help="One replica; nobody else may use it meanwhile.")
@click.option("-m", "--model", required=True)
@click.option(
    "--base",
    default="h100-llama-8b",
    show_default=True,
    metavar="PROFILE",
    help="Where memory and the engine's limits come from: they cannot be measured.",
)
@click.option("--name", default="measured", show_default=True, help="The new profile's name.")
@click.option(
    "--max-prompt-tokens",
    type=click.IntRange(min=512),
    default=8000,
    show_default=True,
    help="The longest cold prompt.",
)
@click.option(
    "--kv-tokens",
    type=click.IntRange(min=1024),
    help="The engine's KV cache, as it says at its start.",
)
@click.option("--max-num-batched-tokens", type=click.IntRange(min=1))
@click.option("--api-key", envvar="BENCH_API_KEY", show_envvar=True)
@click.option(
    "--extra-inputs",
    multiple=True,
    default=("ignore_eos:true", "temperature:0"),
    show_default=True,
    metavar="NAME:VALUE",
)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the profile here; else it is printed.")  # fmt: skip
def calibrate(**given: Any) -> None:
    """Measure a replica's prefill and decode rates in two short runs.

    Prints them, and a profile for `triolet replica` and `triolet simulate`.
    """
    import msgspec

    from bench.engine.profile import ProfileError
    from bench.engine.profiles import find_profile
    from bench.load.rates import as_profile, fit_rates

    changes = {key: given[key] for key in ("kv_tokens", "max_num_batched_tokens") if given[key]}
    try:
        base = find_profile(given["base"], **changes)
        cold, decoding, warnings = _measured(_plan(given), _trials(given["max_prompt_tokens"]))
        rates = fit_rates(cold, decoding, base)
        profile = as_profile(rates, base, given["name"])
    except (ProfileError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(_shown(cold, decoding, rates), err=True)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    text = msgspec.json.format(msgspec.json.encode(profile), indent=2).decode() + "\n"
    if given["output"] is None:
        click.echo(text, nl=False)
    else:
        given["output"].write_text(text)


def _plan(given: dict[str, Any]) -> Plan:
    from bench.load.chosen import extra_inputs
    from bench.load.plan import Closed, Plan

    key = given["api_key"]
    return Plan(
        urls=(given["url"] if "://" in given["url"] else f"http://{given['url']}",),
        model=given["model"],
        loop=Closed(concurrency=1),
        headers=(("authorization", f"Bearer {key}"),) if key else (),
        extra_inputs=extra_inputs(given["extra_inputs"]),
    )


def _trials(longest: int) -> Trials:
    from bench.load.calibrate import Trial, Trials

    usual = Trials()
    short = {length for length in usual.prompts if length < longest}
    batches = [trial for trial in usual.batches if trial.prompt_tokens < longest]
    if len(batches) < len(usual.batches):
        batches += [Trial(1, longest), Trial(8, longest)]
    return Trials(prompts=(*sorted(short), longest), batches=tuple(batches))


def _measured(plan: Plan, trials: Trials) -> tuple[list[Cold], list[Decoding], list[str]]:
    from bench.load.calibrate import measure
    from bench.load.runner import run_alone

    return run_alone(lambda: measure(plan, trials))


def _shown(cold: list[Cold], decoding: list[Decoding], rates: Measured) -> str:
    lines = ["prompt tokens   TTFT ms"]
    lines += [f"{one.tokens:13d} {one.ttft_s * 1e3:9.2f}" for one in cold]
    lines += ["", "sequences  context  ms per token"]
    lines += [f"{one.sequences:9d} {one.context:8.0f} {one.tpot_s * 1e3:13.2f}" for one in decoding]
    lines += [
        "",
        f"prefill: {rates.prefill_s_per_token * 1e6:.2f} us a token "
        f"({rates.prefill_tokens_per_s:,.0f} tokens/s), {rates.request_s * 1e3:.2f} ms a request, "
        f"{rates.prefill_s_per_token_pair * 1e9:.3f} ns a pair of tokens "
        f"(fit within {rates.prefill_error:.1%})",
        f"decode: {rates.decode_floor_s * 1e3:.2f} ms a step, "
        f"{rates.decode_s_per_sequence * 1e6:.1f} us a sequence, "
        f"{rates.decode_s_per_context_token * 1e9:.1f} ns a token of context "
        f"(fit within {rates.decode_error:.1%})",
    ]
    return "\n".join(lines)
