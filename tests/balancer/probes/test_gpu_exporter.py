"""Pages of GPU exporters, as they are in the field."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.probes.exposition import ExpositionInvalid
from balancer.probes.gpu_exporter import ExporterPage, read_gpus
from balancer.probes.gpu_sample import GpuProcess, GpuSample

MIB = 2**20
UUID = "GPU-604ac76c-d9cf-fef3-62e9-d92044ab6e52"


def dcgm(index: int, uuid: str, more: str = "", **values: float) -> bytes:
    """Lines of DCGM's exporter for one GPU."""
    labels = f'gpu="{index}",UUID="{uuid}",pci_bus_id="00000000:37:00.0",device="nvidia{index}"'
    labels += f',modelName="NVIDIA H100 80GB HBM3"{more},Hostname="node-1",container="",pod=""'
    lines = [
        f"# HELP DCGM_FI_DEV_{name} Whatever it is.\n"
        f"# TYPE DCGM_FI_DEV_{name} gauge\n"
        f"DCGM_FI_DEV_{name}{{{labels}}} {value}\n"
        for name, value in values.items()
    ]
    return "".join(lines).encode()


def test_dcgm() -> None:
    """Percent and MiB become shares and bytes; the index is the label `gpu`."""
    page = dcgm(0, UUID, GPU_UTIL=37, FB_USED=5120, FB_FREE=9791, POWER_USAGE=61.5, GPU_TEMP=48)
    page += dcgm(1, "GPU-b", XID_ERRORS=43, CLOCKS_EVENT_REASONS=0x45)
    assert read_gpus(page) == [
        GpuSample(
            uuid=UUID,
            index=0,
            utilisation=0.37,
            memory_used_bytes=5120 * MIB,
            memory_free_bytes=9791 * MIB,
            power_w=61.5,
            temperature_c=48,
        ),
        GpuSample(uuid="GPU-b", index=1, xid=43, throttled=("power_cap", "hw_thermal")),
    ]


def test_dcgm_older_names() -> None:
    """`CLOCK_THROTTLE_REASONS` and the label `uuid`."""
    page = dcgm(0, UUID, CLOCK_THROTTLE_REASONS=128).replace(b"UUID", b"uuid")
    assert read_gpus(page) == [GpuSample(uuid=UUID, index=0, throttled=("power_brake",))]


def test_dcgm_mig() -> None:
    """MIG devices are told apart by the id of their GPU instance."""
    page = dcgm(0, UUID, ',GPU_I_PROFILE="1g.6gb",GPU_I_ID="3"', FB_USED=10, FB_FREE=20)
    page += dcgm(0, UUID, ',GPU_I_PROFILE="1g.6gb",GPU_I_ID="4"', FB_USED=1, FB_FREE=29)
    first, second = read_gpus(page)
    assert (first.uuid, first.parent, first.memory_used_bytes) == (f"{UUID}/3", UUID, 10 * MIB)
    assert (second.uuid, second.parent, second.memory_used_bytes) == (f"{UUID}/4", UUID, MIB)


def test_dcgm_blank() -> None:
    """What DCGM writes for a value that it does not have is not one."""
    page = dcgm(0, UUID, GPU_UTIL=9223372036854775792, POWER_USAGE=2.0**47)
    assert read_gpus(page) == [GpuSample(uuid=UUID, index=0)]


NVIDIA_SMI = """\
# HELP nvidia_smi_gpu_info A metric with a constant '1' value labeled by gpu uuid, name, ...
# TYPE nvidia_smi_gpu_info gauge
nvidia_smi_gpu_info{uuid="df6e7a7c-7314-46f8-abc4-b88b36dcf3aa",index="0",name="NVIDIA H200"} 1
nvidia_smi_index{uuid="df6e7a7c-7314-46f8-abc4-b88b36dcf3aa"} 0
nvidia_smi_utilization_gpu_ratio{uuid="df6e7a7c-7314-46f8-abc4-b88b36dcf3aa"} 0.42
nvidia_smi_utilization_memory_ratio{uuid="df6e7a7c-7314-46f8-abc4-b88b36dcf3aa"} 0.07
nvidia_smi_memory_free_bytes{uuid="df6e7a7c-7314-46f8-abc4-b88b36dcf3aa"} 1.16178026496e+11
nvidia_smi_memory_total_bytes{uuid="df6e7a7c-7314-46f8-abc4-b88b36dcf3aa"} 1.50754820096e+11
nvidia_smi_memory_used_bytes{uuid="df6e7a7c-7314-46f8-abc4-b88b36dcf3aa"} 3.3934016512e+10
nvidia_smi_power_draw_average_watts{uuid="df6e7a7c-7314-46f8-abc4-b88b36dcf3aa"} 600
nvidia_smi_power_draw_watts{uuid="df6e7a7c-7314-46f8-abc4-b88b36dcf3aa"} 627.4
nvidia_smi_temperature_gpu{uuid="df6e7a7c-7314-46f8-abc4-b88b36dcf3aa"} 52
nvidia_smi_temperature_gpu_tlimit{uuid="df6e7a7c-7314-46f8-abc4-b88b36dcf3aa"} 35
nvidia_smi_clocks_event_reasons_sw_power_cap{uuid="df6e7a7c-7314-46f8-abc4-b88b36dcf3aa"} 1
nvidia_smi_clocks_event_reasons_hw_slowdown{uuid="df6e7a7c-7314-46f8-abc4-b88b36dcf3aa"} 0
nvidia_smi_clocks_throttle_reasons_hw_thermal_slowdown\
{uuid="df6e7a7c-7314-46f8-abc4-b88b36dcf3aa"} 1
nvidia_smi_compute_app_used_memory_bytes\
{pid="10291",process_name="/usr/bin/python",uuid="df6e7a7c-7314-46f8-abc4-b88b36dcf3aa"} 2e+09
"""


def test_nvidia_gpu_exporter() -> None:
    """Bytes and ratios as they are; flags for throttling under the newer and the older name."""
    assert read_gpus(NVIDIA_SMI.encode()) == [
        GpuSample(
            uuid="df6e7a7c-7314-46f8-abc4-b88b36dcf3aa",
            index=0,
            utilisation=0.42,
            memory_used_bytes=33_934_016_512,
            memory_free_bytes=116_178_026_496,
            power_w=627.4,
            temperature_c=52,
            throttled=("power_cap", "hw_thermal"),
            processes=(GpuProcess(10291, 2_000_000_000),),
        )
    ]


def test_nvidia_gpu_exporter_faults() -> None:
    """A recovery action is a fault; of several XIDs the last in time counts."""
    page = (
        b'nvidia_smi_gpu_recovery_action{uuid="a"} 1\n'
        b'nvidia_smi_gpu_recovery_action{uuid="b"} 0\n'
        b'nvidia_smi_xid_last_timestamp_seconds{uuid="b",xid="31"} 1.7e9\n'
        b'nvidia_smi_xid_last_timestamp_seconds{uuid="b",xid="13"} 1.6e9\n'
    )
    first, second = read_gpus(page)
    assert first.fault == "the driver asks for a reset or reboot"
    assert (second.fault, second.xid) == (None, 31)


def test_new_xid_is_a_fault() -> None:
    """DCGM repeats the last XID for ever: only a new and grave one is a fault, for a minute."""
    page = ExporterPage()

    def fault(xid: int, now: float) -> str | None:
        [sample] = page.read(dcgm(0, UUID, XID_ERRORS=xid), now)
        assert sample.xid == xid
        return sample.fault

    assert fault(79, 0.0) is None  # of unknown age
    assert fault(79, 1.0) is None
    assert fault(31, 2.0) is None
    assert fault(48, 3.0) == "XID 48: double bit ECC error"
    assert fault(48, 60.0) is not None
    assert fault(48, 64.0) is None


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"<html>not found</html>",
        b'vllm:num_requests_running{model_name="x"} 3\n',
        b"DCGM_FI_DEV_GPU_UTIL 5\n",
        b'DCGM_FI_DEV_GPU_UTIL{gpu="0"} 5\n',
        b"\xff\xfe" * 100,
    ],
)
def test_no_gpus(page: bytes) -> None:
    """A page of something else tells of no GPU."""
    assert read_gpus(page) == []


def test_endless_page() -> None:
    """A page with far too much is refused, or cut short; it takes no memory."""
    page = b"".join(b'DCGM_FI_DEV_GPU_UTIL{UUID="%d"} 1\n' % index for index in range(20_000))
    try:
        assert len(read_gpus(page)) <= 256
    except ExpositionInvalid:
        return


@given(
    st.sampled_from(["DCGM_FI_DEV_", "nvidia_smi_", "triolet_gpu_"]),
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    *("GPU_UTIL", "XID_ERRORS", "CLOCKS_EVENT_REASONS", "FB_FREE"),
                    *("index", "utilization_gpu_ratio", "xid_last_timestamp_seconds"),
                    *("compute_app_used_memory_bytes", "process_memory_bytes"),
                    *("info", "last_xid", "throttled", "fault", "memory_used_bytes"),
                ]
            ),
            st.dictionaries(
                st.sampled_from(["uuid", "UUID", "gpu", "pid", "ports", "xid", "reason", "fault"]),
                st.text(st.characters(exclude_characters='"\\\n', exclude_categories=["Cs"])),
            ),
            st.sampled_from(["0", "1", "-1", "1e400", "NaN", "79.5", "1e300", "x", ""]),
        )
    ),
)
def test_any_page(prefix: str, lines: list[tuple[str, dict[str, str], str]]) -> None:
    """Whatever is on a page, what is read are GPUs with values in range, or nothing."""
    text = "".join(
        f"{prefix}{name}{{{_joined(labels)}}} {value}\n" for name, labels, value in lines
    )
    for sample in read_gpus(text.encode()):
        assert sample.uuid
        assert sample.utilisation is None or 0 <= sample.utilisation <= 1
        assert sample.memory_free_bytes is None or sample.memory_free_bytes >= 0
        assert all(process.pid >= 0 for process in sample.processes or ())


def _joined(labels: dict[str, str]) -> str:
    return ",".join(f'{name}="{value}"' for name, value in labels.items())
