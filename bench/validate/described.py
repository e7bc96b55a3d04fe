"""From what a run says of its engine to a profile: which GPU, which model, which settings."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import msgspec

from bench.engine import Profile, ProfileError
from bench.engine.gpus import GPUS, Gpu
from bench.engine.models import MODELS, Model
from bench.engine.profiles import make_profile
from bench.validate.facts import Facts

__all__ = ["Described", "describe", "gpu_of", "model_of"]

_GPU_NAMES: Final = (
    # The first that is found in the name of the device, or of the run, in lower case.
    (r"h100[ _-]*pcie", "h100-pcie"),
    (r"h100[ _-]*nvl", "h100-nvl"),
    (r"gh200", "gh200"),
    (r"h200", "h200"),
    (r"h100", "h100"),
    (r"h20\b", "h20"),
    (r"b200", "b200"),
    (r"a100.{0,12}40 ?gb", "a100-40"),
    (r"a100", "a100"),
    (r"l40s", "l40s"),
    (r"\bl40\b", "l40"),
    (r"\bl4\b", "l4"),
    (r"\ba10g", "a10g"),
    (r"\ba10\b", "a10"),
    (r"\ba40\b", "a40"),
    (r"rtx[ _-]*pro[ _-]*6000", "rtxpro6000"),
    (r"6000[ _-]*ada", "rtx6000ada"),
    (r"a6000", "a6000"),
    (r"5090", "rtx5090"),
    (r"4090", "rtx4090"),
    (r"3090", "rtx3090"),
)

_LLAMA_3: Final = r"llama-?3(\.[0-3])?(-nemotron|-instruct|-chat)?"
_MODEL_NAMES: Final = (
    (rf"({_LLAMA_3}|distill-llama|hermes-3-llama-3\.1)-70b", "llama-70b"),
    (rf"({_LLAMA_3}|distill-llama|hermes-3-llama-3\.1)-8b", "llama-8b"),
    (r"llama-?3\.2-3b", "llama-3b"),
    (r"llama-?3\.2-1b", "llama-1b"),
    (r"(llama-?2|vicuna)-?(70b)", "llama-2-70b"),
    (r"(llama-?2|vicuna)-?(13b)", "llama-2-13b"),
    (r"(llama-?2|vicuna)-?(7b)", "llama-2-7b"),
    (r"mixtral-8x7b", "mixtral-8x7b"),
    (r"mistral-nemo", "mistral-nemo"),
    (r"mistral-small-(24b|3)", "mistral-small"),
    (r"mistral-7b", "mistral-7b"),
    (r"phi-4$", "phi-4"),
    (r"qwq-32b", "qwen2.5-32b"),
    (r"qwen3-(coder-)?30b-a3b", "qwen3-30b-a3b"),
    (r"qwen3-235b-a22b", "qwen3-235b-a22b"),
    *((rf"qwen3-{size}b", f"qwen3-{size}b") for size in ("32", "14", "8", "4", "1.7", "0.6")),
    *(
        (rf"(qwen2(\.5)?(-coder|-math)?|distill-qwen)-{size}b", f"qwen2.5-{size}b")
        for size in ("72", "32", "14", "7", "3", "1.5", "0.5")
    ),
)

_QUANTISED: Final = r"fp8|fp4|awq|gptq|int[48]|w4a16|w8a8|w8a16|gguf|bnb|[48]bit"

_ASYNC_SINCE: Final = (0, 14)
_RESERVE_SINCE: Final = (0, 19)


class Described(NamedTuple):
    """An engine, as far as its run's record tells."""

    profile: Profile
    engines: int
    """So many of them, each with its own scheduler, behind vLLM's own balancer."""
    assumed: tuple[str, ...]
    """What nothing said, and was taken for granted."""


def describe(facts: Facts, profile: Profile | None = None) -> Described:
    """The profile for a run; if one is given, with the limits that the run had.

    Raises ProfileError if GPU or model are not known, or if something about them is not modelled;
    the message tells how to give a profile instead.
    """
    settings, assumed = _settings(facts)
    engines = facts.data_parallel
    if profile is None:
        gpu, model = gpu_of(facts), model_of(facts)
        _refuse_what_is_not_modelled(facts, model)
        ranks = engines if model.experts else 1
        engines = engines // ranks
        gpu = _with_memory_share(gpu, facts)
        profile = make_profile(gpu, model, gpus=facts.tensor_parallel, ranks=ranks)
        settings = _for_all_ranks(settings, ranks)
        if facts.cache_dtype is not None and facts.cache_dtype.startswith("fp8"):
            settings["context_s"] = profile.context_s / 2
            settings.setdefault("kv_tokens", 2 * profile.kv_tokens)
        if facts.kv_blocks is None:
            assumed.append(f"memory for {settings.get('kv_tokens', profile.kv_tokens)} tokens")
    return Described(msgspec.structs.replace(profile, **settings), engines, tuple(assumed))


def gpu_of(facts: Facts) -> Gpu:
    """The GPU by the device's name, or by the path of the run. Raises ProfileError if unknown."""
    for text in (facts.device, *_parts(facts.named)):
        for pattern, name in _GPU_NAMES:
            if text and re.search(pattern, re.sub(r"[_/]", " ", text.lower())):
                return GPUS[name]
    said = f"the GPU {facts.device!r}" if facts.device else "which GPU it ran on"
    raise ProfileError(
        f"{_last(facts)}: {said} is not known here (known: {', '.join(GPUS)}); {_HOW}"
    )


def model_of(facts: Facts) -> Model:
    """The model by its name, or by the path of the run. Raises ProfileError if unknown."""
    for text in (facts.model, *_parts(facts.named)):
        for pattern, name in _MODEL_NAMES:
            if text and re.search(rf"(^|[^a-z0-9]){pattern}($|[^a-z0-9.])", _plain(text)):
                return MODELS[name]
    said = f"the model {facts.model!r}" if facts.model else "which model it ran"
    raise ProfileError(
        f"{_last(facts)}: {said} is not known here (known: {', '.join(MODELS)}); {_HOW}"
    )


_HOW: Final = (
    "give its profile with --profile NAME or --profile FILE, a JSON file as `triolet bench "
    "calibrate` writes it"
)


def _parts(path: str) -> list[str]:
    """The path's parts, the last one first: it is the one nearest to the run."""
    return [part for part in reversed(path.split("/")) if part][:4]


def _last(facts: Facts) -> str:
    return facts.named.rsplit("/", 1)[-1]


def _plain(text: str) -> str:
    """As names are compared: the last part of a path, in lower case, with dashes."""
    last = text.rstrip("/").rsplit("/", 1)[-1].lower().replace("_", "-")
    return last.replace("meta-llama", "llama")


def _refuse_what_is_not_modelled(facts: Facts, model: Model) -> None:
    name = facts.quantization or facts.model or ""
    if facts.quantization not in (None, "None", "") or re.search(_QUANTISED, name.lower()):
        raise ProfileError(
            f"{_last(facts)}: quantised weights ({name}) are not modelled by GPU and model; {_HOW}"
        )
    if facts.pipeline_parallel > 1:
        raise ProfileError(
            f"{_last(facts)}: pipeline parallelism ({facts.pipeline_parallel} stages of "
            f"{model.name}) is not modelled; {_HOW}"
        )


def _with_memory_share(gpu: Gpu, facts: Facts) -> Gpu:
    if facts.memory_share is None:
        return gpu
    # `make_profile` takes vLLM's usual share of the memory.
    return msgspec.structs.replace(gpu, memory_bytes=gpu.memory_bytes * facts.memory_share / 0.9)


def _settings(facts: Facts) -> tuple[dict[str, Any], list[str]]:
    """Fields of the profile that the run's record tells; and what it does not."""
    version = facts.version or _RESERVE_SINCE
    settings: dict[str, Any] = {
        # Stamps of a recorded run are the engine's own: nothing comes before it.
        "request_s": 0.0,
        "request_token_s": 0.0,
        "async_scheduling": _or_since(facts.async_scheduling, version, _ASYNC_SINCE),
        "reserve_prompt": _or_since(facts.reserve_prompt, version, _RESERVE_SINCE),
    }
    assumed = [] if facts.version else ["vLLM 0.19"]
    for name in ("max_num_seqs", "max_num_batched_tokens", "max_model_len", "block_tokens"):
        value = getattr(facts, name)
        if value:
            settings[name] = value
        elif name.startswith("max_num"):
            assumed.append(f"{name} as vLLM's default")
    if facts.kv_blocks:
        # One block of vLLM's is a stand-in for none.
        settings["kv_tokens"] = (facts.kv_blocks - 1) * (facts.block_tokens or 16)
    return settings, assumed


def _or_since(said: bool | None, version: tuple[int, ...], since: tuple[int, ...]) -> bool:
    return version >= since if said is None else said


def _for_all_ranks(settings: dict[str, Any], ranks: int) -> dict[str, Any]:
    """Limits are those of one rank; the profile is that of all of them."""
    limits = ("max_num_seqs", "max_num_batched_tokens", "kv_tokens")
    return {key: value * ranks if key in limits else value for key, value in settings.items()}
