"""The operators that NPU substitutes call, in the oldest and the newest wheel with stored schemas.

The files list every `npu::` schema of a published wheel; real_wheel/inside/schemas.py prints one.
"""

from __future__ import annotations

import pytest
import torch

from tests.helpers.paths import ASCEND

PLANNED = (
    "npu_rms_norm npu_add_rms_norm npu_rotary_mul npu_swiglu npu_gelu npu_fusion_attention "
    "npu_prompt_flash_attention npu_fused_infer_attention_score npu_grouped_matmul "
    "npu_moe_gating_top_k_softmax npu_moe_init_routing npu_moe_finalize_routing npu_weight_quant_batchmatmul"
).split()


def schemas(version: str) -> dict[str, str]:
    lines = (ASCEND / f"npu_op_schemas_torch_npu_{version}.txt").read_text().splitlines()
    return {line.partition("(")[0].removeprefix("npu::"): line for line in lines if line.startswith("npu::")}


OLD, NEW = schemas("2.6.0.post5"), schemas("2.13.0")


@pytest.mark.parametrize("name", PLANNED)
def test_a_call_written_for_the_old_wheel_fits_the_new_one(name):
    old, new = torch._C.parse_schema(OLD[name]), torch._C.parse_schema(NEW[name])
    assert new.is_backward_compatible_with(old)


def test_what_was_taken_away_since():
    gone = {
        "empty_with_format.names", "npu_max.names_dim", "npu_min.names_dim",
        "fused_cross_entropy_loss_with_max_sum", "fused_linear_cross_entropy_loss_with_max_sum_grad",
        "fused_linear_online_max_sum",
    }  # fmt: skip
    assert set(OLD) - set(NEW) == gone
    assert not gone & set(PLANNED)


def default(schema: str, argument: str):
    return next(
        each.default_value for each in torch._C.parse_schema(schema).arguments if each.name == argument
    )


def test_defaults_that_changed_have_to_be_passed_by_name():
    """These defaults differ between the wheels, so a substitute must not depend on them."""
    for name, argument, old, new in (
        ("npu_apply_rotary_pos_emb", "layout", "BSH", "BSND"),
        ("npu_moe_init_routing_v2", "quant_mode", 0, -1),
    ):
        assert (default(OLD[name], argument), default(NEW[name], argument)) == (old, new)
        assert name not in PLANNED
