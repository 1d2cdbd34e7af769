"""Catalogue of device models: vendor, memory, dense FP16 compute, multiprocessors, MIG.

A figure that its vendor does not publish is None (unknown, never zero). Memory is nominal: drivers and clouds report up
to ten per cent less for the same card, so compare with a tolerance. Knows no price and no cloud. An unknown name is
refused with the names that are known; an unknown extended resource has the vendor "other" and is still counted.
"""

import dataclasses
import types
from collections.abc import Mapping

from vgpu.errors import InvalidRequest

NVIDIA_GPU = "nvidia.com/gpu"
AMD_GPU = "amd.com/gpu"
INTEL_I915 = "gpu.intel.com/i915"
INTEL_XE = "gpu.intel.com/xe"
INTEL_GAUDI = "habana.ai/gaudi"
ASCEND_910 = "huawei.com/Ascend910"
ASCEND_310P = "huawei.com/Ascend310P"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GpuModel:
    """One model of device, as one node publishes it (for a card with two dies that count as two: one die)."""

    name: str
    vendor: str
    resource_name: str
    """Extended resource under which the vendor's device plugin counts whole devices."""
    memory_mib: int | None
    fp16_tflops: float | None
    """Dense FP16 TFLOP/s: tensor or matrix cores where the device has them, without structured sparsity."""
    sms: int | None
    """Streaming multiprocessors; compute units on AMD, Xe cores on Intel."""
    mig_capable: bool | None
    source: str
    aliases: tuple[str, ...] = ()
    """Spellings of DCGM's modelName and of the node label nvidia.com/gpu.product, beside the name."""


def _nvidia(
    name: str,
    memory_mib: int | None,
    fp16_tflops: float | None,
    sms: int | None,
    source: str,
    *aliases: str,
    mig: bool | None = False,
) -> GpuModel:
    return GpuModel(
        name=name,
        vendor="nvidia",
        resource_name=NVIDIA_GPU,
        memory_mib=memory_mib,
        fp16_tflops=fp16_tflops,
        sms=sms,
        mig_capable=mig,
        source=source,
        aliases=aliases,
    )


def _other(  # noqa: PLR0917 - one row of the table below
    vendor: str,
    resource_name: str,
    name: str,
    memory_mib: int | None,
    fp16_tflops: float | None,
    sms: int | None,
    source: str,
    *aliases: str,
) -> GpuModel:
    # MIG is NVIDIA's; partitions of other vendors are published as devices of their own.
    return GpuModel(
        name=name,
        vendor=vendor,
        resource_name=resource_name,
        memory_mib=memory_mib,
        fp16_tflops=fp16_tflops,
        sms=sms,
        mig_capable=False,
        source=source,
        aliases=aliases,
    )


_ANONYMOUS = "openb trace (gpu-v2023), where the model is anonymised: no figure is known"

MODELS: tuple[GpuModel, ...] = (
    # NVIDIA -------------------------------------------------------------------------------------------------------
    # Pascal has no tensor cores: its FP16 figure is that of the CUDA cores.
    _nvidia("P100", 16384, 18.7, 56, "NVIDIA Tesla P100 PCIe datasheet", "P100-PCIE-16GB", "P100-SXM2-16GB"),
    _nvidia(
        "V100M16", 16384, 125.0, 80, "NVIDIA V100 datasheet, SXM2 16 GB; name from the openb trace", "V100-SXM2-16GB"
    ),
    _nvidia("V100M32", 32768, 125.0, 80, "NVIDIA V100 datasheet, SXM2 32 GB; name from the openb trace"),
    _nvidia("V100", 32768, 125.0, 80, "NVIDIA V100 datasheet, SXM2 32 GB (AWS p3dn)", "V100-SXM2-32GB"),
    _nvidia("V100-PCIE", 32768, 112.0, 80, "NVIDIA V100 datasheet, PCIe 32 GB", "V100-PCIE-32GB"),
    _nvidia("T4", 16384, 65.0, 40, "NVIDIA T4 datasheet"),
    _nvidia("T4g", 16384, None, None, "AWS EC2 g5g product page (memory); NVIDIA publishes no datasheet", "T4G"),
    _nvidia("A10", 24576, 125.0, 72, "NVIDIA A10 datasheet"),
    _nvidia("A10G", 24576, 70.0, 80, "NVIDIA A10G datasheet"),
    _nvidia("A30", 24576, 165.0, 56, "NVIDIA A30 datasheet", mig=True),
    _nvidia("A40", 49152, 149.7, 84, "NVIDIA A40 datasheet"),
    _nvidia("A100", 40960, 312.0, 108, "NVIDIA A100 datasheet, 40 GB", "A100-SXM4-40GB", "A100-PCIE-40GB", mig=True),
    _nvidia(
        "A100-80GB", 81920, 312.0, 108, "NVIDIA A100 datasheet, 80 GB", "A100-SXM4-80GB", "A100-80GB-PCIe", mig=True
    ),
    _nvidia(
        "H100", 81920, 989.4, 132, "NVIDIA H100 datasheet, SXM5 80 GB", "H100-80GB-HBM3", "H100-SXM5-80GB", mig=True
    ),
    _nvidia("H100-MEGA", 81920, 989.4, 132, "NVIDIA H100 datasheet, SXM5 80 GB (Google Cloud a3-megagpu)", mig=True),
    _nvidia("H100-PCIE", 81920, 756.0, 114, "NVIDIA H100 datasheet, PCIe 80 GB", "H100-PCIe", mig=True),
    _nvidia("H100-NVL", 96256, 835.5, 132, "NVIDIA H100 NVL datasheet, one card", "H100 NVL", mig=True),
    _nvidia("H200", 144384, 989.4, 132, "NVIDIA H200 datasheet, SXM", "H200-SXM-141GB", mig=True),
    _nvidia("B200", 183359, 2250.0, 148, "NVIDIA HGX B200 datasheet, one of eight; memory as EC2 reports it", mig=True),
    _nvidia(
        "B300", 275040, 2250.0, None, "NVIDIA HGX B300 datasheet, one of eight; memory as EC2 reports it", mig=True
    ),
    _nvidia("L4", 24576, 121.0, 58, "NVIDIA L4 datasheet (half of the figure with sparsity)"),
    _nvidia("L40S", 49152, 362.05, 142, "NVIDIA L40S datasheet"),
    _nvidia(
        "RTX PRO 4500",
        32768,
        None,
        82,
        "NVIDIA RTX PRO 4500 Blackwell datasheet (10,496 cores of 128 per SM); no dense FP16 figure is published",
        "RTX PRO 4500 Blackwell Server Edition",
        mig=None,
    ),
    _nvidia(
        "RTX PRO Server 6000",
        98304,
        None,
        188,
        "NVIDIA RTX PRO 6000 Blackwell Server Edition datasheet (24,064 cores of 128 per SM); no dense FP16",
        "RTX PRO 6000 Blackwell Server Edition",
        mig=True,
    ),
    # The vendor of these two is assumed; the trace says nothing but the letter.
    _nvidia("G2", None, None, None, _ANONYMOUS, mig=None),
    _nvidia("G3", None, None, None, _ANONYMOUS, mig=None),
    _nvidia("GPU", None, None, None, "the placement benchmark's device, of no particular model", mig=None),
    # AMD ----------------------------------------------------------------------------------------------------------
    _other("amd", AMD_GPU, "MI100", 32768, 184.6, 120, "AMD Instinct MI100 product page"),
    _other("amd", AMD_GPU, "MI210", 65536, 181.0, 104, "AMD Instinct MI210 product page"),
    _other(
        "amd",
        AMD_GPU,
        "MI250X",
        65536,
        191.5,
        110,
        "AMD Instinct MI250X product page, halved: the card has two dies and each counts as one amd.com/gpu",
    ),
    _other("amd", AMD_GPU, "MI300X", 196608, 1307.4, 304, "AMD Instinct MI300X product page"),
    _other("amd", AMD_GPU, "MI325X", 262144, 1307.4, 304, "AMD Instinct MI325X product page"),
    # Intel --------------------------------------------------------------------------------------------------------
    _other("intel", INTEL_XE, "Max 1550", 131072, None, 128, "Intel Data Center GPU Max 1550 specifications"),
    _other("intel", INTEL_I915, "Max 1100", 49152, None, 56, "Intel Data Center GPU Max 1100 specifications"),
    _other("intel", INTEL_I915, "Flex 170", 16384, None, 32, "Intel Data Center GPU Flex 170 specifications"),
    _other("intel", INTEL_GAUDI, "Gaudi2", 98304, None, None, "Intel Gaudi 2 product page", "HL-225"),
    _other("intel", INTEL_GAUDI, "Gaudi3", 131072, None, None, "Intel Gaudi 3 product page", "HL-325"),
    # Huawei -------------------------------------------------------------------------------------------------------
    _other("huawei", ASCEND_910, "Ascend910", 32768, 256.0, None, "Huawei Ascend 910 announcement, August 2019"),
    _other("huawei", ASCEND_910, "Ascend910B", 65536, None, None, "Huawei Atlas 800T A2 specifications (memory)"),
    _other("huawei", ASCEND_310P, "Ascend310P", 24576, None, None, "Huawei Atlas 300I Pro specifications (memory)"),
)

VENDORS: Mapping[str, str] = types.MappingProxyType(
    {
        "nvidia.com": "nvidia",
        "amd.com": "amd",
        "gpu.intel.com": "intel",
        "habana.ai": "intel",
        "huawei.com": "huawei",
        "cambricon.com": "cambricon",
        "hygon.com": "hygon",
        "iluvatar.ai": "iluvatar",
        "metax-tech.com": "metax",
        "mthreads.com": "mthreads",
        "enflame.com": "enflame",
        "qualcomm.com": "qualcomm",
        "aws.amazon.com": "aws",
        "google.com": "google",
    }
)
"""Vendor by the domain of an extended resource (what the vendors' device plugins register)."""


def vendor_of(resource_name: str) -> str:
    """The vendor behind an extended resource such as ``amd.com/gpu``; "other" where the domain is not known."""
    domain, slash, _ = resource_name.partition("/")
    return VENDORS.get(domain, "other") if slash else "other"


def _spelling(name: str) -> str:
    """One form for all spellings: lower case, dashes, without the brand and the mark of a time-sliced device."""
    text = "-".join(name.lower().replace("_", " ").replace("-", " ").split())
    for prefix in ("nvidia-", "tesla-", "amd-", "instinct-", "intel-", "huawei-"):
        text = text.removeprefix(prefix)
    return text.removesuffix("-shared")


def _index() -> dict[str, GpuModel]:
    index: dict[str, GpuModel] = {}
    for model in MODELS:
        for name in (model.name, *model.aliases):
            other = index.setdefault(_spelling(name), model)
            if other is not model:
                raise ValueError(f"alias {name!r} names both {other.name} and {model.name}")
    return index


_BY_SPELLING = _index()


def find(name: str) -> GpuModel:
    """The model of that name or alias, whatever the case, separators and brand prefix.

    Raises InvalidRequest for a name that the catalogue does not hold.
    """
    model = _BY_SPELLING.get(_spelling(name))
    if model is None:
        known = ", ".join(sorted(known.name for known in MODELS))
        raise InvalidRequest(f"gpu model={name!r}: not in the catalogue; known models: {known}")
    return model
