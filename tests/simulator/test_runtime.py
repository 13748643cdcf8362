"""torch.npu, torch.accelerator, memory, random numbers, autocast, pinned memory, threads, PyTorch's modes."""

from __future__ import annotations

import gc
import threading

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from deskocr_kit import simulator
from deskocr_kit.device import is_out_of_memory

NPU = torch.device("npu:0")


def test_the_module_torch_npu():
    npu = torch.npu
    assert npu.is_available() and npu.device_count() == 1 and npu.current_device() == 0 and npu.simulated
    npu.set_device("npu:0")
    npu.synchronize()
    npu.empty_cache()
    begin, end = npu.Event(enable_timing=True), npu.Event(enable_timing=True)
    begin.record()
    end.record()
    end.synchronize()
    assert begin.elapsed_time(end) >= 0
    with npu.device(0), npu.stream(npu.Stream()):
        npu.current_stream().synchronize()
    assert "simulated" in npu.get_device_name() and torch.get_device_module("npu") is npu
    import torch.npu as imported

    assert imported is npu


def test_torch_accelerator():
    import torch.accelerator as accelerator

    assert accelerator.current_accelerator().type == "npu" and accelerator.is_available()
    assert accelerator.device_count() == 1
    accelerator.synchronize()


def test_memory_is_what_tensors_hold():
    gc.collect()
    before = torch.npu.memory_allocated()
    torch.npu.reset_peak_memory_stats()
    x = torch.empty(1000, 1000, device=NPU)
    assert torch.npu.memory_allocated() - before == 4_000_000
    view, z = x.t()[3:], x + 1
    assert torch.npu.memory_allocated() - before == 8_000_000
    del x, z
    assert torch.npu.memory_allocated() - before == 4_000_000  # the view keeps the memory
    del view
    assert torch.npu.memory_allocated() == before
    assert torch.npu.max_memory_allocated() == before + 8_000_000
    free, total = torch.npu.mem_get_info()
    assert total == 64 << 30 and free == total - before


def test_no_leak_over_many_operators():
    x = torch.ones(64, 64, device=NPU)
    gc.collect()
    before = torch.npu.memory_allocated()
    for _ in range(200):
        y = F.softmax(x @ x, -1)[3:].contiguous()
    del y
    assert torch.npu.memory_allocated() == before


@pytest.mark.parametrize(("kind", "error"), [("torch", torch.OutOfMemoryError), ("runtime", RuntimeError)])
@pytest.mark.parametrize("how", ["factory", "operator"])
def test_out_of_memory_of_each_generation(kind, error, how):
    room = (torch.npu.memory_allocated() + 1_000_000) / (1 << 30)
    small = {"name": "small", "device": {"memory_gib": room, "out_of_memory": kind}}
    with simulator.using(small):
        x = torch.zeros(100_000, device=NPU)
        with pytest.raises(error, match="NPU out of memory. Tried to allocate") as caught:
            torch.empty(1 << 40, device=NPU) if how == "factory" else x.repeat(10)
        assert type(caught.value) is error and is_out_of_memory(caught.value)
        assert (x[:10] * 0 + 1).sum().item() == 10  # the device still works


def test_an_unknown_index_is_refused():
    for make in (
        lambda: torch.empty(2, device="npu:7"),
        lambda: torch.ones(2).to("npu:7"),
        lambda: torch.tensor([1.0], device="npu:1"),
        lambda: torch.npu.set_device(1),
    ):
        with pytest.raises(RuntimeError, match="107001.*Invalid device ID"):
            make()


def test_two_devices():
    with simulator.using("all", device_count=2):
        assert torch.npu.device_count() == 2
        a, b = torch.ones(2, device="npu:0"), torch.ones(2, device="npu:1")
        assert (b + 1).device == torch.device("npu:1") and a.to("npu:1").device.index == 1
        with pytest.raises(RuntimeError, match="npu:0 and npu:1"):
            a + b
        with pytest.raises(RuntimeError, match="npu:0 and npu:1"):
            torch.cat([a, b])
        with simulator.record() as r:
            a.to("npu:1")
        assert r.total("p2p") == 1


def test_seeds_and_generators():
    torch.manual_seed(3)
    a = torch.randn(4, device=NPU)
    torch.manual_seed(3)
    assert torch.equal(a, torch.randn(4, device=NPU))
    torch.npu.manual_seed_all(1)
    generator = torch.Generator(device=NPU)
    b = torch.randn(3, device=NPU, generator=generator.manual_seed(0))
    assert torch.equal(b, torch.randn(3, device=NPU, generator=generator.manual_seed(0)))
    with torch.random.fork_rng(devices=[0], device_type="npu"):
        torch.randn(2, device=NPU)
    assert F.dropout(torch.ones(100, device=NPU)).eq(0).any().item()
    assert torch.multinomial(torch.ones(3, device=NPU), 1).device == NPU


def test_autocast():
    linear, x = nn.Linear(4, 4).to(NPU), torch.randn(2, 4, device=NPU)
    with torch.no_grad(), torch.autocast("npu", dtype=torch.float16):
        assert torch.is_autocast_enabled("npu") and torch.get_autocast_dtype("npu") is torch.float16
        y = linear(x)
        assert y.dtype is torch.float16 and torch.mm(x, x.t()).dtype is torch.float16
        assert F.softmax(y, -1).dtype is torch.float32 and (x + 1).dtype is torch.float32


@pytest.mark.filterwarnings("ignore:The argument 'device' of Tensor:DeprecationWarning")
def test_pinned_memory():
    pinned = torch.ones(3).pin_memory()
    assert pinned.is_pinned() and not torch.ones(3).is_pinned() and pinned.is_cpu
    assert torch.ones(3).pin_memory("npu").is_pinned("npu")
    for batch in DataLoader([torch.ones(2) for _ in range(4)], batch_size=2, pin_memory=True):
        assert batch.to(NPU, non_blocking=True).sum().item() == 4


def test_threads():
    failures = []

    def work():
        try:
            x = torch.ones(8, 8, device=NPU)
            for _ in range(50):
                x = (x @ x) / 8
                x[0].mul_(1)
            assert x.sum().item() == 64
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_dispatch_modes_see_the_operators():
    a = torch.ones(4, 4, device=NPU)
    with FlopCounterMode(display=False) as flops:
        a @ a
    assert flops.get_total_flops() == 2 * 4**3

    class Listen(TorchDispatchMode):
        seen: list = []  # noqa: RUF012

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.seen.append(str(function))
            return function(*args, **(kwargs or {}))

    with Listen(), torch.no_grad():
        F.linear(a, a).relu_()
        F.scaled_dot_product_attention(a[None], a[None], a[None])
    assert "aten.relu_.default" in Listen.seen and "aten.scaled_dot_product_attention.default" in Listen.seen


def test_fake_tensors_keep_the_device_and_need_no_memory():
    before = torch.npu.memory_allocated()
    with FakeTensorMode(), torch.device("npu:0"):
        module = nn.Linear(100_000, 100_000)
        y = module(torch.empty(2, 100_000)).softmax(-1)
    assert y.device == NPU and y.shape == (2, 100_000) and torch.npu.memory_allocated() <= before


def test_vmap_foreach_compile():
    assert torch.vmap(lambda a: a.sum())(torch.ones(3, 2, device=NPU)).tolist() == [2, 2, 2]
    sums = torch._foreach_add([torch.ones(2, device=NPU), torch.ones(3, device=NPU)], 1.0)
    assert [s.sum().item() for s in sums] == [4, 6]
    compiled = torch.compile(lambda x: x.sin() + 1, backend="eager")
    assert compiled(torch.zeros(3, device=NPU)).tolist() == [1, 1, 1]


def test_events_and_streams_of_torch():
    torch.Event("npu")
    stream = torch.Stream("npu")
    # Before 2.9 PyTorch uses a C++ function that Python cannot provide, and returns the value of the CPU.
    assert stream.device.type == ("npu" if hasattr(torch._C, "_acc") else "cpu")


def test_names_of_older_programs():
    """torch.npu.amp, streams, switches and memory figures as programs written for a card use them."""
    layer, x = torch.nn.Linear(4, 4).to(NPU), torch.randn(2, 4, device=NPU)
    with torch.npu.amp.autocast():
        assert layer(x).dtype is torch.float16 and torch.npu.is_autocast_enabled()
    scaler, before = torch.npu.amp.GradScaler(), layer.weight.detach().clone()
    optimiser = torch.optim.SGD(layer.parameters(), 0.1)
    scaler.scale(layer(x).sum()).backward()
    scaler.step(optimiser)
    scaler.update()
    assert not torch.equal(layer.weight.cpu(), before.cpu())
    torch.npu.conv.allow_hf32 = torch.npu.matmul.allow_hf32 = False
    assert torch.npu.is_jit_compile_false()
    with torch.npu.stream(torch.npu.Stream()) as stream:
        (x + 1).record_stream(stream)
    assert "bytes held" in torch.npu.memory_summary()
    if hasattr(torch.accelerator, "memory_allocated"):
        assert torch.accelerator.memory_allocated() == torch.npu.memory_allocated() > 0


def test_forward_mode_differentiation():
    x, w = torch.randn(2, 4, device=NPU), torch.randn(3, 4, device=NPU)
    for call in (lambda w: torch.nn.functional.linear(x, w), lambda w: x @ w.t()):
        _, tangent = torch.func.jvp(call, (w,), (torch.ones_like(w),))
        torch.testing.assert_close(tangent.cpu(), (x.cpu() @ torch.ones(4, 3)))
