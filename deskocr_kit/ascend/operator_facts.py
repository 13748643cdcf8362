"""Properties of operators that are not in their schemas: one list per property, each with its reason."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _aten(text: str) -> frozenset[str]:
    return frozenset(f"aten::{word}" for word in text.split())


#: Only the device knows the size of the result: the host has to wait for it.
WAITS = _aten("""
    nonzero nonzero.out masked_select masked_select.out equal is_nonzero bincount
    _unique _unique2 unique_dim unique_consecutive unique_dim_consecutive
    repeat_interleave.Tensor repeat_interleave.self_Tensor
""")

#: They take CPU index tensors (copied to the device) and bool masks (counted by the host).
INDEXING = _aten("""
    index.Tensor index.Tensor_out index_put index_put_ index_put.out _index_put_impl_
    _unsafe_index.Tensor _unsafe_index_put
""")

#: They allocate, and start nothing on a device.
NO_LAUNCH = _aten("""
    empty.memory_format empty_strided empty_like new_empty new_empty_strided empty_permuted
""")

#: They change or look at shapes, strides and storages only, though their schemas do not say that they are
#: views.
METADATA = _aten("""
    _unsafe_view lift lift_fresh detach alias detach_ as_strided_ t_ transpose_ squeeze_ squeeze_.dim
    squeeze_.dims unsqueeze_ resize_ resize_as_ set_ set_.source_Tensor set_.source_Storage
    set_.source_Storage_storage_offset is_same_size is_pinned record_stream
    _has_compatible_shallow_copy_type
""")

#: Composite in PyTorch, one kernel in both published torch_npu wheels, and common in models.
ONE_KERNEL = _aten("""
    matmul softmax.int scaled_dot_product_attention one_hot argsort argsort.stable
    repeat_interleave.self_int repeat_interleave.self_Tensor isfinite isclose log_sigmoid
    lstm.input lstm.data lstm_cell gru.input _pad_packed_sequence
""")

#: Both wheels have a kernel for these composites, and the simulator leaves them to PyTorch: views,
#: allocation, copies between devices (they end in its own), and the convolutions of other builds.
LEFT_TO_PYTORCH = _aten("""
    copy_ empty_like squeeze squeeze.dim unsqueeze resize_as_ _foreach_copy_ split_with_sizes_copy.out
    _convolution _nnpack_spatial_convolution convolution_overrideable convolution_backward_overrideable
""")

#: Their Python binding accepts numbers for tensors, so that a wrapped number can be passed on unchanged.
TAKES_NUMBERS = frozenset(_words("add sub mul div subtract multiply divide true_divide floor_divide"))

#: The most frequent operators. PyTorch's generated Python function parses arguments faster than the operator
#: object.
QUICK = {
    f"aten::{name}": name.partition(".")[0]
    for name in _words("""
        add.Tensor sub.Tensor mul.Tensor div.Tensor pow.Tensor_Scalar neg rsqrt exp sigmoid cos sin tanh
        matmul mm bmm addmm baddbmm cat stack clone index_select embedding mean.dim sum.dim_IntList
        eq.Scalar ne.Scalar gt.Scalar lt.Scalar softmax.int where.self masked_fill.Scalar native_layer_norm
    """)
}

#: They only move or compare data: fp16 in, the same fp16 out. A conversion to fp32 would change nothing.
MOVES = frozenset(
    _words("""
    cat stack index index_select gather scatter clone where fill zero masked_fill masked_scatter
    masked_select index_put _index_put_impl _unsafe_index _unsafe_index_put index_copy index_fill
    repeat flip roll constant_pad_nd embedding empty_like zeros_like ones_like full_like new_empty
    new_zeros eye full ones zeros arange tril triu copy nonzero take put unfold_copy pixel_shuffle
    pixel_unshuffle channel_shuffle im2col equal isnan isinf eq ne gt ge lt le bernoulli normal
    uniform randn rand unsafe_split split_with_sizes_copy one_hot argmax argmin relu neg abs
    """)
)

#: The NPU computes them for integers, the CPU for floating-point numbers only. Accelerators: the experts of
#: transformers 5 count their tokens with histc of int32 there, and of float32 on a CPU.
WHOLE_NUMBERS = _aten("histc histc.out")

#: torch.autocast("npu"): run in the lower precision, or in fp32. The usual lists of PyTorch's accelerators.
AUTOCAST_LOWER = _words("""
    conv1d conv2d conv3d convolution _convolution addbmm addmm addmv baddbmm bmm einsum linear matmul
    mm mv scaled_dot_product_attention prelu chain_matmul
""")
AUTOCAST_FLOAT32 = _words("""
    exp exp2 expm1 log log10 log2 log1p acos asin cosh erfinv pow.Tensor_Scalar pow.Tensor_Tensor
    pow.Scalar reciprocal rsqrt sinh tan softplus layer_norm native_layer_norm group_norm softmax.int
    log_softmax.int cumsum cumprod sum sum.dim_IntList prod norm.Scalar mse_loss l1_loss smooth_l1_loss
    nll_loss cosine_similarity
""")
