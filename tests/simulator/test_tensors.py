"""An npu tensor behaves like any other: creation, copies, views, writes, printing."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import numpy
import pytest
import torch
import torch.nn.functional as F

NPU = torch.device("npu:0")


def test_it_is_a_plain_tensor_on_npu():
    x = torch.zeros(2, device="npu")
    assert type(x) is torch.Tensor and x.device == NPU and x.is_npu and not x.is_cpu and x.get_device() == 0


MAKERS = {
    "empty": lambda: torch.empty(2, 3, device=NPU),
    "zeros": lambda: torch.zeros(2, 3, device=NPU),
    "ones": lambda: torch.ones(2, 3, device=NPU),
    "full": lambda: torch.full((2, 3), 1.0, device=NPU),
    "randn": lambda: torch.randn(2, 3, device=NPU),
    "rand": lambda: torch.rand(2, 3, device=NPU),
    "randint": lambda: torch.randint(0, 3, (2, 3), device=NPU),
    "tensor": lambda: torch.tensor([[1, 2, 3]], device=NPU),
    "as_tensor": lambda: torch.as_tensor([1.0, 2.0], device=NPU),
    "zeros_like": lambda: torch.zeros_like(torch.ones(2, 3), device=NPU),
    "new_zeros": lambda: torch.ones(2, device=NPU).new_zeros(3),
    "new_tensor": lambda: torch.ones(2, device=NPU).new_tensor([3]),
    "new_empty": lambda: torch.ones(2, device=NPU).new_empty(3),
    "new_full": lambda: torch.ones(2, device=NPU).new_full((3,), 2.0),
    "linspace": lambda: torch.linspace(0, 1, 5, device=NPU),
    "eye": lambda: torch.eye(3, device=NPU),
    "arange": lambda: torch.arange(5, device=NPU),
    "arange_step": lambda: torch.arange(0, 5, 2, device=NPU),
    "randperm": lambda: torch.randperm(5, device=NPU),
    "tril": lambda: torch.tril(torch.ones(3, 3, device=NPU)),
    "triu_indices": lambda: torch.triu_indices(3, 3, device=NPU),
    "empty_strided": lambda: torch.empty_strided((2, 3), (1, 2), device=NPU),
    "scalar_tensor": lambda: torch.scalar_tensor(3.0, device=NPU),
    "nothing": lambda: torch.empty(0, device=NPU),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_made_on_the_device(make):
    assert make().device == NPU


def test_made_with_the_right_content():
    assert torch.ones(3, device=NPU).sum().item() == 3
    assert torch.arange(5, device=NPU).tolist() == [0, 1, 2, 3, 4]
    assert torch.full((2,), 7, device=NPU).tolist() == [7, 7]


def test_to_the_device_and_back():
    x = torch.randn(3, 4)
    y = x.to("npu")
    assert y.device == NPU and torch.equal(y.cpu(), x)
    assert y.to(NPU).data_ptr() == y.data_ptr() and x.npu().device == NPU
    y.add_(1)
    assert not torch.equal(y.cpu(), x)  # a copy, not the same memory
    assert torch.equal(x.to(NPU, torch.float16).cpu(), x.half())
    assert y.double().dtype is torch.float64 and y.half().device == NPU and y.to("cpu").is_cpu
    assert torch.equal(x.t().to(NPU).cpu(), x.t())
    z = torch.zeros(3, 4)
    z.copy_(y)
    assert torch.equal(z, y.cpu())


DTYPES = "float16 bfloat16 float32 float64 int8 uint8 int16 int32 int64 bool complex64"


@pytest.mark.parametrize("name", DTYPES.split())
def test_every_dtype(name):
    dtype = getattr(torch, name)
    x = torch.ones(3, device=NPU).to(dtype)
    y = x.clone()
    assert y.dtype is dtype and torch.equal(x, y) and torch.equal(y.cpu(), torch.ones(3, dtype=dtype))


def test_masked_scatter_into_a_row_view_changes_the_whole():
    x = torch.zeros(2, 5, 3, device=NPU)
    mask = torch.tensor([0, 1, 0, 1, 0], dtype=torch.bool, device=NPU).unsqueeze(-1)
    x[1].masked_scatter_(mask, torch.arange(6.0, device=NPU).view(2, 3))
    y = x.cpu()
    assert y[1, 1].tolist() == [0, 1, 2] and y[1, 3].tolist() == [3, 4, 5] and not y[0].any()


def _write_through_views(t: torch.Tensor) -> None:
    def here(*values, **options):
        return torch.tensor(*values, device=t.device, **options)

    t[0, 1:, ::2].mul_(-1)
    t.view(6, 4)[1].zero_()
    t.transpose(0, 2)[3] = 7
    t[..., 0] += 100
    t.permute(2, 0, 1)[1].copy_(torch.ones(2, 3, device=t.device))
    t.unbind(0)[0].sub_(1)
    for part in t.chunk(2, -1):
        part.add_(0.5)
    t.split([1, 2], 1)[1].clamp_(max=50)
    t.diagonal(dim1=1, dim2=2).fill_(3)
    t.narrow(2, 0, 1).neg_()
    t.squeeze().unsqueeze(0).select(1, 0).add_(1)
    t.flatten().unfold(0, 2, 2)[:, 0].add_(9)
    t[here([0]), :, 1] = 42.0
    t[t > 60] = -5
    t.index_fill_(2, here([2]), 8)
    t.index_copy_(0, here([1]), torch.ones(1, 3, 4, device=t.device))
    t.as_strided((2,), (12,), 3).fill_(77)
    t.masked_fill_(t == 42, 1)
    t.index_put_((here([0]),), here(2.0), accumulate=True)


def test_writes_through_every_kind_of_view():
    x, y = torch.arange(24.0, device=NPU).reshape(2, 3, 4), torch.arange(24.0).reshape(2, 3, 4)
    _write_through_views(x)
    _write_through_views(y)
    assert torch.equal(x.cpu(), y)
    assert x.view(-1)._is_view() and x.view(-1)._base is x._base


def test_views_under_another_dtype():
    x = torch.arange(4, device=NPU, dtype=torch.int32)
    assert x.view(torch.float32).shape == (4,) and x.view(torch.int64).shape == (2,)
    assert x.view(torch.int64).cpu().tolist() == torch.arange(4, dtype=torch.int32).view(torch.int64).tolist()
    z = torch.tensor([1 + 2j, 3 - 4j], device=NPU)
    assert torch.view_as_real(z)[1].tolist() == [3, -4]
    assert z.conj().cpu().tolist() == [1 - 2j, 3 + 4j] and z.conj().imag.clone().tolist() == [-2, 4]
    assert (z.conj() + 0).tolist() == [1 - 2j, 3 + 4j] and z.conj().clone().tolist() == [1 - 2j, 3 + 4j]


def test_shape_changed_in_place():
    y = torch.arange(6.0, device=NPU).view(2, 3)
    y.t_()
    y.squeeze_()
    y.unsqueeze_(0)
    y.transpose_(0, 1)
    assert (y + 0).shape == (3, 1, 2) and y[:, 0, 1].tolist() == [3, 4, 5]
    z = torch.arange(6.0, device=NPU)
    z.resize_(2, 2)
    assert (z * 1).tolist() == [[0, 1], [2, 3]]
    z.resize_(10)
    assert (z + 0).shape == (10,) and z[:6].tolist() == [0, 1, 2, 3, 4, 5]


def test_out_arguments():
    a, b = torch.randn(3, 3), torch.randn(3, 3)
    x, y, out = a.npu(), b.npu(), torch.empty(3, 3, device=NPU)
    assert torch.mm(x, y, out=out).data_ptr() == out.data_ptr()
    assert torch.allclose(out.cpu(), a @ b)
    grown = torch.empty(0, device=NPU)
    torch.cat([x, y], out=grown)
    assert torch.equal(grown.cpu(), torch.cat([a, b]))
    values, where = torch.empty(3, device=NPU), torch.empty(3, dtype=torch.long, device=NPU)
    torch.max(x, 1, out=(values, where))
    assert torch.equal(values.cpu(), a.max(1)[0]) and torch.equal(where.cpu(), a.max(1)[1])


def test_data_of_a_parameter_can_be_exchanged():
    p = torch.nn.Parameter(torch.ones(2))
    p.data = p.data.to(NPU)
    assert p.device == NPU and (p + 1).sum().item() == 4
    p.data = torch.full((2, 2), 5.0, device=NPU)
    assert (p + 0).tolist() == [[5, 5], [5, 5]]


def test_empty_and_scalar_tensors():
    assert torch.cat([torch.empty(0, 4, device=NPU), torch.ones(1, 4, device=NPU)]).shape == (1, 4)
    s = torch.tensor(3, device=NPU)
    assert int(s) == 3 and float(s) == 3 and [10, 20, 30, 40][s] == 40 and range(5)[s] == 3
    assert torch.ones(5, device=NPU)[s].item() == 1
    half = torch.tensor(2.0, dtype=torch.float16, device=NPU)
    assert (half % 1.5).dtype is torch.float16  # a wrapped number must not promote the dtype


def test_printing():
    assert repr(torch.arange(3.0, device=NPU)) == "tensor([0., 1., 2.], device='npu:0')"
    assert "device='npu:0', requires_grad=True" in repr(torch.nn.Parameter(torch.ones(2, device=NPU)))
    assert "..." in repr(torch.randn(2000, device=NPU)) and f"{torch.tensor(1.5, device=NPU):.2f}" == "1.50"


@pytest.mark.parametrize("convert", [torch.Tensor.numpy, numpy.asarray], ids=["numpy", "asarray"])
def test_numpy_refuses_as_for_any_device(convert):
    with pytest.raises(TypeError, match="can't convert npu:0 device type tensor to numpy"):
        convert(torch.ones(2, device=NPU))


def test_deepcopy_and_pickle():
    x = torch.randn(3, device=NPU)
    before = x.cpu()
    copied = copy.deepcopy(x)
    copied.zero_()
    assert torch.equal(x.cpu(), before) and copied.device == NPU
    restored = pickle.loads(pickle.dumps(x))
    assert restored.device == NPU and torch.equal(restored.cpu(), before)


def test_storage():
    x = torch.arange(4.0, device=NPU)
    s = x.untyped_storage()
    assert s.device == NPU and s.nbytes() == 16 and x[1:].untyped_storage().data_ptr() == s.data_ptr()
    assert torch.empty(0, device=NPU).set_(s, 1, (2,), (1,)).tolist() == [1, 2]
    assert s.cpu().device.type == "cpu"
    assert torch.UntypedStorage(8, device="npu").device.type == "npu"


def test_freed_when_nobody_holds_it():
    x = torch.ones(3, device=NPU)
    watch = weakref.ref(x)
    x = x + 0
    gc.collect()
    assert watch() is None


def test_default_device():
    with torch.device("npu"):
        assert torch.ones(2).device == NPU and torch.nn.Linear(2, 2).weight.device == NPU
    torch.set_default_device("npu:0")
    try:
        assert (torch.zeros(3) % 2).device == NPU
    finally:
        torch.set_default_device(None)


def test_assert_close_sees_the_device():
    torch.testing.assert_close(torch.ones(3, device=NPU), torch.ones(3, device=NPU))
    with pytest.raises(AssertionError, match="device"):
        torch.testing.assert_close(torch.ones(3, device=NPU), torch.ones(3))


MIXED = {
    "add": lambda a, c: a + c,
    "add_reversed": lambda a, c: c + a,
    "matmul": lambda a, c: a @ c,
    "mm": lambda a, c: torch.mm(c, a),
    "cat": lambda a, c: torch.cat([a, c]),
    "stack": lambda a, c: torch.stack([c, a]),
    "add_": lambda a, c: a.add_(c),
    "add_to_cpu": lambda a, c: c.add_(a),
    "embedding": lambda a, c: F.embedding(torch.tensor([0]), a),
    "where": lambda a, c: torch.where(a > 0, a, c),
    "linear": lambda a, c: F.linear(a, c),
    "masked_fill_": lambda a, c: a.masked_fill_(c > 0, 1.0),
    "index_select": lambda a, c: a.index_select(0, torch.tensor([0])),
    "gather": lambda a, c: a.gather(0, torch.zeros(1, 2, dtype=torch.long)),
    "masked_scatter_": lambda a, c: a.masked_scatter_(c > 0, c),
    "layer_norm": lambda a, c: F.layer_norm(a, (2,), torch.ones(2)),
    "sdpa": lambda a, c: F.scaled_dot_product_attention(a[None], a[None], c[None]),
    "conv1d": lambda a, c: F.conv1d(a[None], c[None]),
    "out": lambda a, c: torch.add(a, 1, out=c),
}


@pytest.mark.parametrize("mix", MIXED.values(), ids=MIXED)
def test_devices_do_not_mix(mix):
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        mix(torch.ones(2, 2, device=NPU), torch.ones(2, 2))


def test_what_may_be_mixed():
    a, c = torch.ones(2, 2, device=NPU), torch.ones(2, 2)
    assert (a + torch.tensor(1.0)).sum().item() == 8 and (a * torch.tensor(2)).sum().item() == 8
    assert a[torch.tensor([0])].shape == (1, 2) and a[c > 0].shape == (4,)
