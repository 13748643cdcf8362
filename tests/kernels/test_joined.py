"""A page through the network with the kernels that span the encoders and the prompt.

They step aside for modules that somebody listens to, or has replaced.
"""

from __future__ import annotations

import pytest
import torch

from deskocr_kit.compare.trace import traced
from deskocr_kit.course.tiny_family import ENCODERS, SAM, SIZES
from deskocr_kit.device.tolerances import relative_error
from deskocr_kit.operators.kernels.launch import Launch, listening
from deskocr_kit.operators.substitutes.registry import candidates
from model import DeepseekOCRConfig, DeepseekOCRForCausalLM
from model.fast import DEFAULTS
from model.official import CHECKPOINTS
from model.slots import SPANNING, Slots

JOINED = tuple(slot for slot in SPANNING if slot not in ("decode_layer", "choose"))
KERNELS = {
    "add_layer_norm": "layer_norm_kernel",
    "add_rms_norm": "rms_norm_kernel",
    "sam_attention": "window_attention_kernel",
    "mixture": "router_kernel",
}


def page_for(config, vectors: int) -> dict:
    """A view of 64 pixels, whose map has side 4, and a prompt of `vectors` + 18 tokens."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 290, (1, vectors + 18), generator=generator)
    ids[0, 1 : 1 + vectors] = config.image_token_id
    pixels = torch.randn(1, 3, 64, 64, generator=generator)
    mask = ids == config.image_token_id
    crop = torch.tensor([[1, 1]])
    return {
        "input_ids": ids, "images": [(pixels, pixels)], "images_seq_mask": mask, "images_spatial_crop": crop
    }  # fmt: skip


def smallest(name: str) -> DeepseekOCRConfig:
    """Two layers each; windows of side 3, which do not fill a map of side 4."""
    official = CHECKPOINTS[name]
    sam = {**SAM, "layers": 2, "heads": 1, "window_size": 3}
    encoder = {**ENCODERS[official.encoder_key], "layers": 2}
    return DeepseekOCRConfig(
        architectures=[official.architecture],
        vision_config={"width": {"sam_vit_b": sam, official.encoder_key: encoder}},
        **{**SIZES, "num_hidden_layers": 2},
    )


VECTORS = {"deepseek-ocr": 3, "deepseek-ocr-2": 145, "unlimited-ocr": 3}  # of a view of 64 pixels


@pytest.fixture(scope="module")
def loaded():
    return DeepseekOCRForCausalLM.random(smallest("deepseek-ocr"))


@pytest.fixture
def network(loaded):
    loaded.use_plan({**vars(Slots()), **DEFAULTS})
    return loaded


@pytest.fixture(scope="module")
def page(loaded):
    return page_for(loaded.config, VECTORS["deepseek-ocr"])


def use(network, *slots: str) -> None:
    network.use_plan({slot: candidates(slot)["triton"] for slot in slots})


def logits_of(network, page) -> tuple[torch.Tensor, list[str]]:
    """The logits, and the kernels that were started."""
    started: list[Launch] = []
    with torch.no_grad(), listening(started.append):
        logits = network(**page).logits
    return logits, [launch.name for launch in started]


def test_every_spanning_slot_is_covered():
    assert set(JOINED) == set(KERNELS)


@pytest.mark.parametrize("slot", JOINED)
def test_each_slot_alone_gives_the_same_logits(network, page, slot):
    expected, none = logits_of(network, page)
    use(network, slot)
    ours, started = logits_of(network, page)
    assert not none and set(started) >= {KERNELS[slot]}
    assert relative_error(ours, expected) < 1e-5


#: The other models: the same code with another encoder, and 145 places in the prompt.
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in CHECKPOINTS if name != "deepseek-ocr"]


@pytest.mark.parametrize("name", ["deepseek-ocr", *OTHERS])
def test_all_together_take_one_kernel_per_sum_and_norm(name):
    network = DeepseekOCRForCausalLM.random(smallest(name))
    page = page_for(network.config, VECTORS[name])
    expected, _ = logits_of(network, page)
    use(network, *JOINED, "attention", "quick_gelu", "gelu")
    ours, started = logits_of(network, page)
    assert relative_error(ours, expected) < 1e-5
    c = network.config
    # Two norms per layer, and a last one behind RMS norms. The first of all has no sum before it.
    clip = c.encoder.title == "CLIP"
    with_layer_norms = [c.sam.layers, *([c.encoder.layers] if clip else [])]
    with_rms_norms = [c.decoder.layers, *([] if clip else [c.encoder.layers])]
    assert started.count("layer_norm_kernel") == sum(2 * n - 1 for n in with_layer_norms)
    assert started.count("rms_norm_kernel") == sum(2 * n for n in with_rms_norms)
    assert started.count("window_attention_kernel") == c.sam.layers
    assert started.count("attention_kernel") == c.decoder.layers + (c.encoder.layers if clip else 0)
    assert started.count("router_kernel") == c.decoder.layers - c.decoder.dense_layers


def test_a_batch_with_padding_gives_equal_tokens(network, page):
    padded = {
        **{name: page[name].repeat(2, 1) for name in ("input_ids", "images_seq_mask")},
        "images": 2 * page["images"],
        "images_spatial_crop": page["images_spatial_crop"].repeat(2, 1),
        "attention_mask": torch.ones(2, page["input_ids"].shape[1], dtype=torch.long),
        "eos_token_id": None,
    }
    expected = network.generate(**padded, max_new_tokens=2)
    use(network, *JOINED, "attention")
    assert torch.equal(network.generate(**padded, max_new_tokens=2), expected)


@pytest.mark.parametrize(
    "path",
    [
        "model.sam_model.blocks.1",
        "model.sam_model.blocks.0.norm2",
        "model.sam_model.blocks.0.attn.qkv",
        "model.layers.1.mlp",
        "model.norm",
    ],
)
def test_a_module_with_a_hook_is_called(network, page, path):
    plain, _ = logits_of(network, page)
    seen: list[torch.Tensor] = []
    module = network.get_submodule(path)
    with_hook = module.register_forward_hook(lambda module, args, output: seen.append(output))
    logits_of(network, page)
    use(network, *JOINED)
    ours, _ = logits_of(network, page)
    with_hook.remove()
    expected, got = seen
    assert got.shape == expected.shape and relative_error(got, expected) < 1e-4
    assert relative_error(ours, plain) < 1e-5


def test_replaced_modules_are_called(network, page):
    class Louder(torch.nn.LayerNorm):
        def forward(self, x):
            return 2 * super().forward(x)

    block = network.model.sam_model.blocks[1]
    before, block.norm1 = block.norm1, Louder(block.norm1.weight.shape, block.norm1.eps)
    block.norm1.load_state_dict(before.state_dict())
    try:
        expected, _ = logits_of(network, page)
        use(network, *JOINED)
        ours, _ = logits_of(network, page)
    finally:
        block.norm1 = before
    assert relative_error(ours, expected) < 1e-5


def test_a_trace_leaves_spanning_slots_alone(network, page):
    """A wrapper around the reference would look like another implementation, and change what runs."""
    with torch.no_grad(), traced(network, names=[], modules=False) as calls:
        network(**page)
    slots = {call.slot for call in calls}
    assert "rel_pos_attention" in slots and "moe" in slots and not slots & set(SPANNING)
    assert all(getattr(network.slots, slot) is getattr(Slots(), slot) for slot in SPANNING)
