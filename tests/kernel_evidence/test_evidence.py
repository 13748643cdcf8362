"""The stored records of the kernels: they are of the present code, complete, and within their bounds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch

from deskocr_kit.kernel_evidence.before_mask import before_mask
from deskocr_kit.kernel_evidence.forms import GUARD, official_forms, plan
from deskocr_kit.kernel_evidence.lowering import BUFFER, buffer_bytes
from deskocr_kit.kernel_evidence.on_device import LEVELS, device_record, device_words
from deskocr_kit.kernel_evidence.shown import kernel_source_digest, shown_form
from deskocr_kit.kernel_evidence.table import DATA, NOT_RUN, evidence, records, table
from deskocr_kit.operator_census.ocr_model import census_ocr, page_inputs
from deskocr_kit.operators.kernels.candidates import CANDIDATES
from deskocr_kit.operators.kernels.launch import GRID_LIMIT
from model import DeepseekOCRConfig
from tests.helpers.paths import ROOT

SHOWN = ROOT / "notebooks" / "data" / "conv2d_on_ascend.mlir"
BUDGETS = {"float32": 3e-6, "float16": 3e-3, "bfloat16": 2e-2}


@pytest.fixture(scope="module")
def found():
    return evidence()


def test_no_kernel_failed_and_every_error_is_within_its_budget(found):
    for each in found:
        assert not each.failed and not each.refused, each
        for dtype, error in each.errors.items():
            assert error <= BUDGETS[dtype], (each.kernel, dtype)


def test_every_form_fits_an_npu(found):
    for each in found:
        assert each.grid <= GRID_LIMIT and each.buffer_bytes <= BUFFER // 2, (
            each.kernel
        )  # half: double buffers


def test_what_an_npu_accesses_before_the_mask_is_a_load_whose_address_is_kept_inside():
    """tests/kernels/conftest.py shows that these addresses lie inside, for every shape that they try."""
    for form in records()["lowered"]["forms"]:
        for each in form["before_mask"]:
            assert each.startswith("tl.load(") and "tl.where(" in each.partition(" mask=")[0], (form, each)


def test_an_access_before_its_mask_is_found_by_its_location(tmp_path):
    source = tmp_path / "one.py"
    source.write_text(
        "a = tl.load(x + at, mask=same)\n"
        "b = tl.load(x + at, mask=at < n)\n"
        "c = tl.load(x + at)\n"
        "tl.store(\n    y + at, a, mask=same)\n"
    )
    text = f"""
    memref.copy %reinterpret_cast, %alloc : memref<4xf16> to memref<4xf16> loc(#loc1)
    memref.copy %subview, %subview_1 : memref<?xf16> to memref<?xf16> loc(#loc2)
    memref.copy %reinterpret_cast_2, %alloc_3 : memref<4xf16> to memref<4xf16> loc(#loc3)
    %12 = memref.load %reinterpret_cast_4[%c0] : memref<1xf16> loc(#loc4)
    memref.copy %reinterpret_cast_5, %alloc_6 : memref<4xf16> to memref<4xf16> loc(#loc)
#loc = loc(unknown)
#loc1 = loc("{source}":1:12)
#loc2 = loc("{source}":2:12)
#loc3 = loc("{source}":3:12)
#loc4 = loc("{source}":4:0)
"""
    assert before_mask(text) == ["tl.load(x + at, mask=same)", "tl.store(y + at, a, mask=same)"]


def test_the_record_of_the_interpreter_covers_every_slot():
    interpreted = records()["interpreted"]
    assert set(interpreted["slots"]) == set(CANDIDATES)
    for slot, entry in interpreted["slots"].items():
        assert set(entry["errors"]) == set(BUDGETS) and entry["calls"] >= 6, slot


def test_the_record_of_the_front_end_has_every_official_form():
    """Recorded again here, from dry runs of the whole network in fp16."""
    lowered = records()["lowered"]
    known = {(form["kernel"], json.dumps(form["constants"], sort_keys=True)) for form in lowered["forms"]}
    forms = official_forms((torch.float16,))
    assert len(forms) > 25
    for form in forms:
        assert (form.name, json.dumps(form.constants, sort_keys=True)) in known


def test_nothing_is_claimed_that_was_not_done(found):
    """Without a record of a device, which `deskocr evidence add` stores, a level is not run."""
    for level in LEVELS.values():
        said = {getattr(each, level) for each in found}
        assert (said == {NOT_RUN}) == (not (DATA / f"{level}.json").exists()), level
    assert table(found).count(NOT_RUN) == sum((each.compiled, each.run).count(NOT_RUN) for each in found)


def test_a_record_of_a_card_fills_its_column(tmp_path):
    """As tests/on_cuda writes it; a fault is said, and a record of other kernels is not used."""
    rows = [
        {"slot": "swiglu", "dtype": "float16", "error": 2e-4, "why": "", "kernels": ["swiglu_kernel"]},
        {"slot": "swiglu", "dtype": "float32", "error": 1e-7, "why": "", "kernels": ["swiglu_kernel"]},
        {"slot": "gelu", "dtype": "float16", "error": 0.5, "why": "a: too far", "kernels": ["gelu_kernel"]},
        {"calls tried": 3, "of": 9},
    ]
    path = tmp_path / "compiled.json"
    assert device_words(path) == {}
    record = device_record(rows, {"name": "a card", "torch": "2"})
    path.write_text(json.dumps(record))
    assert device_words(path) == {"swiglu_kernel": "a card, error 2e-04", "gelu_kernel": "a: too far"}
    path.write_text(json.dumps({**record, "kernels": "0" * 12}))
    assert device_words(path) == {}


def test_the_page_on_kernels_states_the_records(found):
    text = (ROOT / "docs" / "kernels.md").read_text("utf-8")
    lowered = records()["lowered"]
    forms = lowered["forms"]
    assert f"{len(forms)} forms of {len(found)} kernels" in text
    assert f"asks for is {max(form['buffer_bytes'] for form in forms) // 1024} KiB" in text
    discrete = sum(bool(each.discrete) for each in found)
    assert f"In {discrete} of {len(found)} kernels the front end loads or stores some block" in text
    assert f"largest grid has {max(form['grid'] for form in forms):,} programs" in text
    worst = {dtype: max(each.errors.get(dtype, 0.0) for each in found) for dtype in BUDGETS}
    said = re.search(r"interpreter is (\S+) in fp32, (\S+) in fp16 and (\S+) in bf16", text)
    for dtype, figure in zip(BUDGETS, said.groups(), strict=True):
        assert 0.8 * float(figure) <= worst[dtype] <= 1.2 * float(figure)


def test_a_record_of_other_kernels_is_refused(monkeypatch):
    monkeypatch.setattr("deskocr_kit.kernel_evidence.table.kernel_digest", lambda: "0" * 12)
    with pytest.raises(ValueError, match="make it again: python -m deskocr_kit.kernel_evidence.interpreted"):
        records()


def test_the_buffer_bound_counts_operands():
    text = """
      %1 = linalg.fill ins(%c : f16) outs(%0 : tensor<64x128xf16>) -> tensor<64x128xf16>
      %2 = arith.mulf %1, %1 : tensor<16x256xf32>
      %3 = linalg.matmul ins(%a, %b : tensor<512x512xf32>, tensor<512x512xf32>) outs(%c : tensor<512x512xf32>)
    """
    assert buffer_bytes(text) == 2 * 16 * 256 * 4


def launches(name: str = "deepseek-ocr", **how) -> tuple[int, int]:
    """(of a decoded token, of a page of 2x3 tiles with its prompt), with the n-gram guard."""
    config = DeepseekOCRConfig.official(name)
    census = census_ocr(config, inputs={**page_inputs(config, "gundam", (2, 3)), **GUARD}, **how)
    return census.launches("decode"), census.launches("vision") + census.launches("prefill")


@pytest.fixture(scope="module")
def counted() -> dict[str, tuple[int, int]]:
    """Official size, batch 1, fp16: counted without a device."""
    return {"defaults": launches(), "kernels": launches(plan=plan())}


def test_a_decoded_token_takes_at_most_80_launches(counted):
    assert counted["kernels"][0] <= 80
    page = {**page_inputs(DeepseekOCRConfig(), "tiny", (1, 1)), **GUARD}
    without = census_ocr(plan=plan(without=("decode_layer", "choose")), inputs=page)
    assert without.launches("decode") > counted["kernels"][0]


def test_a_page_with_its_prompt_takes_at_most_900_launches(counted):
    assert counted["kernels"][1] <= 900


def test_the_page_about_kernels_states_these_launches(counted):
    stated = re.findall(r"[|] (\d+) [|] (\d+) [|]$", (ROOT / "docs" / "kernels.md").read_text("utf-8"), re.M)
    assert [tuple(map(int, each)) for each in stated] == [counted["defaults"], counted["kernels"]]


@pytest.mark.slow  # each count takes seconds; the first model has its own test
@pytest.mark.parametrize("name", ["unlimited-ocr", "deepseek-ocr-2"])
def test_launches_of_the_other_models(name, counted):
    token, page = launches(name, plan=plan())
    text = (ROOT / "docs" / "kernels.md").read_text("utf-8")
    if name == "unlimited-ocr":
        assert "Unlimited-OCR takes as many" in text and (token, page) == counted["kernels"]
    else:
        assert f"DeepSeek-OCR-2 takes {token} and {page}" in text


def test_bytes_per_token_are_those_of_the_active_weights():
    """The chosen experts are read where they lie: every tensor of a step, of the experts the chosen share."""
    from deskocr_kit.operators.kernels.launch import Launch, listening

    config, seen = DeepseekOCRConfig(), []
    model_bytes: dict[int, int] = {}

    def listener(launch: Launch) -> None:
        seen.append(launch)

    with listening(listener):
        census_ocr(config, plan=plan(), inputs=page_inputs(config, "tiny", (1, 1)))
    steps = [each for each in seen if each.name in ("vector_product_kernel", "gate_up_kernel", "down_kernel")]
    c = config.decoder
    for launch in steps:
        for tensor in launch.args:
            if isinstance(tensor, torch.Tensor) and tensor.numel() > 1 << 20:
                share = c.experts_per_token / c.experts if tensor.dim() == 3 else 1
                model_bytes[id(tensor)] = int(tensor.numel() * tensor.element_size() * share)
    layer = 4 * c.width**2  # q, k, v, o
    dense = 3 * c.width * c.dense_hidden
    mixed = 3 * c.width * c.expert_hidden * (c.experts_per_token + c.shared_experts)
    active = 2 * (c.layers * layer + dense + (c.layers - 1) * mixed)
    assert active * 0.95 <= sum(model_bytes.values()) <= 1.1 * active


def test_the_text_of_the_notebook_is_of_the_present_kernel():
    text = SHOWN.read_text("utf-8")
    assert f"made from code {kernel_source_digest()} by" in text, (
        "python -m deskocr_kit.kernel_evidence.shown notebooks/data/conv2d_on_ascend.mlir"
    )
    form = shown_form()
    assert form.constants["KH"] == 3 and form.types["x"] == "*fp16"
    assert f"func.func @{form.name}(" in text and 'mix_mode = "mix"' in text


@pytest.fixture(scope="module")
def in_ascend_environment(tmp_path_factory):
    """A function that runs a module of the kit in a new environment with triton-ascend."""
    folder = tmp_path_factory.mktemp("ascend")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    packages = ["triton-ascend==3.2.0", "pybind11", "pyyaml"]
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *packages], check=True)
    here = Path(torch.__file__).parents[1]
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    (site / "zz_rest.pth").write_text(str(here))  # torch and the others come from this environment

    def run(module: str, out: Path) -> str:
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
        command = [python, "-m", f"deskocr_kit.kernel_evidence.{module}", out]
        done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        return out.read_text("utf-8")

    yield run
    shutil.rmtree(folder / "env")


@pytest.mark.slow  # installs triton-ascend, 54 MB, into an environment of its own; a minute
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="triton-ascend 3.2.0 has no such wheel")
def test_the_front_end_of_the_vendors_compiler_takes_every_form(in_ascend_environment, tmp_path):
    stored = records()["lowered"]
    assert json.loads(in_ascend_environment("lowering", tmp_path / "lowered.json")) == stored


@pytest.mark.slow  # see above
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="triton-ascend 3.2.0 has no such wheel")
def test_the_front_end_writes_the_text_of_the_notebook(in_ascend_environment, tmp_path):
    assert in_ascend_environment("shown", tmp_path / "shown.mlir") == SHOWN.read_text("utf-8")
