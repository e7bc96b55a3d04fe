"""A run's record leads to the right profile, or to an error that tells what to do."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bench.engine import ProfileError, find_profile
from bench.validate.described import describe, gpu_of, model_of
from bench.validate.facts import Facts, read_facts


def facts(**values: Any) -> Facts:
    given = {"named": "/runs/x", "device": "NVIDIA H100 80GB HBM3", "model": "Qwen/Qwen3-8B"}
    return Facts(**{**given, **values})


@pytest.mark.parametrize(
    ("device", "gpu"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA H20", "h20"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("NVIDIA A100-PCIE-40GB", "a100-40"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L40", "l40"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA A40", "a40"),
        ("NVIDIA RTX A6000", "a6000"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx6000ada"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA GeForce RTX 3090", "rtx3090"),
        ("NVIDIA GeForce RTX 5090", "rtx5090"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtxpro6000"),
    ],
)
def test_devices(device: str, gpu: str) -> None:
    """Names as the driver gives them."""
    assert gpu_of(facts(device=device)).name == gpu


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("meta-llama/Llama-3.1-8B", "llama-8b"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama-8b"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama-70b"),
        ("meta-llama/Llama-3.2-3B-Instruct", "llama-3b"),
        ("meta-llama/Llama-3.2-1B", "llama-1b"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "llama-70b"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", "qwen2.5-32b"),
        ("meta-llama/Llama-2-7b-hf", "llama-2-7b"),
        ("meta-llama/Llama-2-70b-chat-hf", "llama-2-70b"),
        ("lmsys/vicuna-13b-v1.5", "llama-2-13b"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral-7b"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b"),
        ("mistralai/Mistral-Small-24B-Instruct-2501", "mistral-small"),
        ("microsoft/phi-4", "phi-4"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b"),
        ("Qwen/Qwen2.5-Coder-32B-Instruct", "qwen2.5-32b"),
        ("Qwen/Qwen2.5-1.5B", "qwen2.5-1.5b"),
        ("Qwen/Qwen3-4B-Instruct-2507", "qwen3-4b"),
        ("Qwen/Qwen3-32B", "qwen3-32b"),
        ("Qwen/Qwen3-1.7B", "qwen3-1.7b"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3-30b-a3b"),
        ("/models/qwen3-8b/", "qwen3-8b"),
    ],
)
def test_models(path: str, model: str) -> None:
    """Names as hubs have them, and local paths."""
    assert model_of(facts(model=path)).name == model


def test_the_path_names_what_the_record_does_not() -> None:
    """Older recorders wrote no device: directory and file name say it."""
    found = facts(device=None, model=None, named="/x/bench/RTXPRO6000/Qwen3-32B/vllm/run")
    assert (gpu_of(found).name, model_of(found).name) == ("rtxpro6000", "qwen3-32b")
    found = facts(device=None, named="/x/RTX4090_Llama-3.1-8B")
    assert gpu_of(found).name == "rtx4090"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"device": "AMD Instinct MI300X"}, r"x: the GPU 'AMD Instinct MI300X' is not known here"),
        ({"device": None}, r"x: which GPU it ran on is not known here .*--profile FILE"),
        ({"model": "google/gemma-2-9b"}, r"the model 'google/gemma-2-9b' .* \(known: llama-8b"),
        ({"model": "Qwen/Qwen3-8B-FP8"}, r"quantised weights \(Qwen/Qwen3-8B-FP8\)"),
        ({"quantization": "awq"}, r"quantised weights \(awq\)"),
        ({"pipeline_parallel": 2}, r"pipeline parallelism \(2 stages"),
        ({"model": "meta-llama/Llama-3.1-70B"}, r"leaves no room"),
    ],
)
def test_what_is_not_known_or_not_modelled(values: dict[str, Any], message: str) -> None:
    """Each is refused with what to do."""
    with pytest.raises(ProfileError, match=message):
        describe(facts(**values))


def test_a_given_profile_keeps_its_constants_and_has_the_limits_of_the_run() -> None:
    """Whatever GPU and model are."""
    given = find_profile("a100-llama-8b")
    found = describe(facts(device="AMD", model="?", max_num_seqs=7, kv_blocks=101), given)
    assert found.profile == msgspec.structs.replace(
        given, max_num_seqs=7, kv_tokens=1600, request_s=0.0, request_token_s=0.0
    )


def test_versions_tell_what_a_record_leaves_open() -> None:
    """Before 0.14 a step was planned after the one before it, before 0.19 no prompt reserved."""
    settings = [
        (describe(facts(version=version)).profile, version)
        for version in ((0, 8, 5), (0, 14), (0, 19, 1), None)
    ]
    assert [(each.async_scheduling, each.reserve_prompt) for each, _ in settings] == [
        (False, False),
        (True, False),
        (True, True),
        (True, True),
    ]
    said = describe(facts(version=(0, 19), async_scheduling=False, reserve_prompt=False)).profile
    assert (said.async_scheduling, said.reserve_prompt) == (False, False)


def test_dense_models_run_in_engines_of_their_own_and_experts_in_one() -> None:
    """Data parallel: two engines behind a balancer; or, with experts, two ranks in step."""
    dense = describe(facts(data_parallel=2, max_num_seqs=64))
    assert (dense.engines, dense.profile.max_num_seqs) == (2, 64)
    experts = describe(facts(model="Qwen/Qwen3-30B-A3B", data_parallel=2, max_num_seqs=64))
    assert (experts.engines, experts.profile.max_num_seqs) == (1, 128)
    alone = describe(facts(model="Qwen/Qwen3-30B-A3B"))
    assert experts.profile.expert_weights_s == alone.profile.expert_weights_s / 2
    assert experts.profile.weights_s == alone.profile.weights_s
    assert experts.profile.kv_tokens > 2 * alone.profile.kv_tokens
    assert experts.profile.link_s > alone.profile.link_s == 0.0


def test_memory_settings_count() -> None:
    """A smaller share of the memory leaves less for keys and values; 8-bit ones take half."""
    usual = describe(facts()).profile
    assert describe(facts(memory_share=0.6)).profile.kv_tokens < 0.6 * usual.kv_tokens
    small = describe(facts(cache_dtype="fp8_e4m3")).profile
    assert (small.kv_tokens, small.context_s) == (2 * usual.kv_tokens, usual.context_s / 2)


def test_facts_are_found_in_old_and_new_places() -> None:
    """The resolved configuration counts more than the arguments; tags of objects do not count."""
    content = {
        "model": "m",
        "vllm_version": "0.19.0rc1",
        "engine_kwargs": {"max_num_seqs": 8, "max_model_len": None, "tensor_parallel_size": 2},
        "kv_cache": {"num_gpu_blocks": 50, "block_size": 32},
        "resolved_config": {
            "scheduler_config": {"max_num_seqs": 16, "async_scheduling": "<object>"},
            "cache_config": {"enable_prefix_caching": False, "gpu_memory_utilization": 0.8},
            "model_config": {"max_model_len": 4096, "quantization": None},
        },
    }
    found = read_facts(msgspec.json.encode(content), named="x")
    assert found == Facts(
        named="x",
        model="m",
        version=(0, 19, 0),
        tensor_parallel=2,
        max_num_seqs=16,
        max_model_len=4096,
        block_tokens=32,
        kv_blocks=50,
        memory_share=0.8,
        prefix_caching=False,
    )
