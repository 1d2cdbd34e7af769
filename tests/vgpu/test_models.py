"""The catalogue of device models: every known name resolves, nothing is made up, nothing unknown passes."""

import csv
from pathlib import Path

import pytest

from providers import catalog
from vgpu import models
from vgpu.errors import InvalidRequest
from vgpu.inventory import Device


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("T4", "T4"),
        ("Tesla T4", "T4"),
        ("Tesla-T4", "T4"),
        ("Tesla-T4-SHARED", "T4"),
        ("NVIDIA T4G", "T4g"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA-A10", "A10"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA-A100-PCIE-40GB", "A100"),
        ("NVIDIA-A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA-A100-80GB-PCIe", "A100-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA-H100-NVL", "H100-NVL"),
        ("NVIDIA H100 PCIe", "H100-PCIE"),
        ("NVIDIA H200", "H200"),
        ("nvidia b200", "B200"),
        ("NVIDIA-L4", "L4"),
        ("NVIDIA_L40S", "L40S"),
        ("Tesla-V100-SXM2-16GB", "V100M16"),
        ("Tesla V100-SXM2-32GB", "V100"),
        ("Tesla-P100-PCIE-16GB", "P100"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO Server 6000"),
        ("AMD Instinct MI300X", "MI300X"),
        ("Intel Max 1550", "Max 1550"),
        ("Ascend910B", "Ascend910B"),
    ],
)
def test_spellings(spelling: str, name: str) -> None:
    assert models.find(spelling).name == name


@pytest.mark.parametrize("name", ["", "A1000", "H-100", "NVIDIA", "A100-SXM4-40GB-MIG-1g.5gb"])
def test_unknown_model_is_refused_by_name_with_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"known models: .*A100, .*T4") as caught:
        models.find(name)
    assert repr(name) in str(caught.value)


def test_every_model_is_usable_and_sourced() -> None:
    assert len({model.name for model in models.MODELS}) == len(models.MODELS)
    for model in models.MODELS:
        assert models.find(model.name) is model
        assert all(models.find(alias) is model for alias in model.aliases)
        assert len(model.source) > 10
        assert models.vendor_of(model.resource_name) == model.vendor
        # Unknown is None, never zero; a device of the model can exist.
        assert all(figure is None or figure > 0 for figure in (model.memory_mib, model.fp16_tflops, model.sms))
        Device(uuid="u", model=model.name, memory_mib=model.memory_mib, resource_name=model.resource_name)
        assert not (model.mig_capable and model.vendor != "nvidia")


@pytest.mark.parametrize("name", ["G2", "G3", "GPU"])
def test_anonymous_models_have_no_figures(name: str) -> None:
    model = models.find(name)
    assert (model.memory_mib, model.fp16_tflops, model.sms, model.mig_capable) == (None, None, None, None)


@pytest.mark.parametrize(
    ("resource_name", "vendor"),
    [
        ("nvidia.com/gpu", "nvidia"),
        ("nvidia.com/mig-1g.10gb", "nvidia"),
        ("amd.com/gpu", "amd"),
        ("gpu.intel.com/i915", "intel"),
        ("gpu.intel.com/xe", "intel"),
        ("habana.ai/gaudi", "intel"),
        ("huawei.com/Ascend910", "huawei"),
        ("huawei.com/Ascend310P", "huawei"),
        ("example.org/accelerator", "other"),
        ("nvidia.com", "other"),
        ("cpu", "other"),
        ("", "other"),
    ],
)
def test_vendor_of_a_resource(resource_name: str, vendor: str) -> None:
    assert models.vendor_of(resource_name) == vendor


def test_vendors_beside_nvidia_are_there() -> None:
    assert {"nvidia", "amd", "intel", "huawei"} <= {model.vendor for model in models.MODELS}


@pytest.mark.parametrize(
    ("file", "column"),
    [("catalog/gpu-offers-seed.csv", "gpu"), ("openb/openb_node_list_gpu_node.csv", "model")],
)
def test_every_model_of_the_public_data_is_known(traces: Path, file: str, column: str) -> None:
    with (traces / file).open(encoding="utf-8", newline="") as rows:
        names = {row[column] for row in csv.DictReader(rows)}
    assert names
    assert {models.find(name).name for name in names} == names


def test_memory_of_the_seed_agrees_with_the_datasheets(traces: Path) -> None:
    for cloud in ("aws", "gcp", "azure"):
        for offer in catalog.read_seed(traces / "catalog/gpu-offers-seed.csv", provider=cloud).offers:
            nominal, listed = models.find(offer.shape.gpu_model).memory_mib, offer.shape.gpu_memory_mib
            assert nominal is not None
            assert listed is not None
            whole = listed * 1000 / offer.shape.gpu_milli
            assert nominal * 0.9 <= whole <= nominal * 1.01, offer.id
