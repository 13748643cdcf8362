"""A whole layer of the decoder in six launches (five in a dense layer), for one more token per sample.

    norm, q k v                            normed_product
    rotate, write to the cache, attend     rotate_write_attend
    output product, residual               added_product
    norm, router, softmax, best experts    route
    gate, up, SwiGLU of chosen and shared  few_tokens
    down, weighted sum, residual           few_tokens

A dense layer has the norm with gate, up and SwiGLU in one launch, then down with the residual.
"""

from __future__ import annotations

from torch import Tensor

from model.decode_layer import Experts, LayerWeights

from . import experts, router
from .decode_attention import rotate_write_attend
from .vector_products import added_product, normed_product


def decode_layer(
    x: Tensor,
    layer: LayerWeights,
    kv: Tensor,
    place: Tensor,
    cos: Tensor,
    sin: Tensor,
    visible: int,
    mask: Tensor | None = None,
) -> Tensor:
    """See model.decode_layer.decode_layer for the arguments."""
    qkv = normed_product(x, layer.input_norm, layer.eps, layer.qkv)
    attended = rotate_write_attend(qkv, cos, sin, kv, place, visible, mask)
    x = added_product(attended, layer.out, x)
    mlp = layer.mlp
    if not isinstance(mlp, Experts):
        gate_up, down = mlp
        return added_product(normed_product(x, layer.mlp_norm, layer.eps, gate_up, gated=True), down, x)
    y, ids, weights = router.route(
        x, layer.mlp_norm, layer.eps, mlp.gate, mlp.top, mlp.renormalise, mlp.scale
    )
    shared = (mlp.shared_gate_up, mlp.shared_down)
    return experts.few_tokens(y, mlp.gate_up, mlp.down, ids, weights, shared, residual=x)
