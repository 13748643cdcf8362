"""Tensor parallel: the logits and the tokens of one process. Ranks are threads here, see test_processes."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from deskocr_kit.quantise.apply import quantise
from deskocr_kit.reading.reader import Reader
from model import DeepseekOCRForCausalLM, NonFiniteError
from model.generation import LOOK_EVERY
from model.parallel import tensor
from model.weight_files import CheckpointError
from tests.helpers.family import NAMES, batch, tiny
from tests.helpers.golden import CHECKPOINT, inputs, tensors
from tests.helpers.paths import NANO
from tests.helpers.thread_ranks import run

PAGE = NANO / "pages"
LOGITS = 1e-4  # fp32, absolute


def together(folder, ranks, work, **how):
    """The results of `work(model)` on every rank."""
    return run(ranks, lambda group: work(tensor.load(folder, group=group, **how)))


@pytest.mark.parametrize(
    ("case", "ranks"),
    [
        ("text", 2),
        ("text", 3),
        ("batch2_img_text", 2),
        *(
            pytest.param(case, 3, marks=pytest.mark.slow) for case in ("g640", "batch2", "crop2x1")
        ),  # 5 s each
    ],
)
def test_logits_and_tokens_of_the_goldens(case, ranks, golden_model):
    """Rank by rank whole, cut, or both: 3 heads divide by 3, and 224 units of the dense layer do not."""
    given, expected = inputs(case), tensors(case)
    new = expected["gen24"].shape[1]

    def work(model):
        with torch.no_grad():
            logits = model(**given).logits
        return logits, model.generate(**given, max_new_tokens=new)[:, -new:]

    with torch.no_grad():
        whole = golden_model(**given).logits
    seen = given["attention_mask"].bool()
    for logits, ids in together(CHECKPOINT, ranks, work):
        assert (logits - whole)[seen].abs().max() < LOGITS
        assert ids.equal(expected["gen24"])


@pytest.mark.parametrize("name", NAMES)
def test_the_three_models_with_guard_log_probabilities_and_padding(name, tmp_path):
    whole = DeepseekOCRForCausalLM.random(tiny(name), seed=3).requires_grad_(False)
    whole.save_pretrained(tmp_path)
    given = batch(whole.config, [[(2, 1)], []], seed=2)
    how = {"max_new_tokens": 24, "no_repeat_ngram_size": 2, "return_logprobs": True, "eos_token_id": None}
    ids, scores = whole.generate(**given, **how)
    for other, others in together(tmp_path, 2, lambda model: model.generate(**given, **how)):
        assert other.equal(ids)
        assert (others - scores).abs().max() < LOGITS


def test_the_lowest_id_of_a_tie_is_chosen_across_ranks(tmp_path):
    """Words 5 and 200 are the same row of the output matrix, in different ranks."""
    model = DeepseekOCRForCausalLM.random(tiny("deepseek-ocr"), seed=1).requires_grad_(False)
    given = {"input_ids": torch.tensor([[0, 7, 9]])}
    hidden = {}
    model.model.norm.register_forward_hook(lambda module, args, out: hidden.update(out=out[0, -1]))
    model(**given)
    for row in (5, 200):
        model.lm_head.weight[row] = 3 * hidden["out"] / hidden["out"].norm()
    model.save_pretrained(tmp_path)
    for ids in together(tmp_path, 2, lambda model: model.generate(**given, max_new_tokens=1)):
        assert ids[0, -1] == 5


def test_the_sums_are_those_that_the_split_promises():
    """One pass over the prompt and one per further token; the logits of each are gathered."""
    given, new = {"input_ids": torch.tensor([[0, 7, 9, 11]])}, 5

    def work(model):
        model.generate(**given, max_new_tokens=new, eos_token_id=None)
        group, split = model.group, model.split
        expected = split.sums() * split.summed() * (4 + new - 1) + split.gathered() * new
        return group.sums, group.sent_bytes, split.sums() * new, 4 * expected

    for sums, sent, expected, sent_expected in together(NANO, 2, work, dtype=torch.float32):
        assert (sums, sent) == (expected, sent_expected)


@pytest.mark.parametrize(("ranks", "across"), [(2, 2), (2, 3), (4, 2)])
def test_views_are_divided_among_the_ranks(ranks, across, tmp_path):
    """Tiles and a global view. A rank without a view of its own encodes the last one."""
    model = DeepseekOCRForCausalLM.random(tiny("deepseek-ocr"), seed=1).requires_grad_(False)
    model.save_pretrained(tmp_path)
    given = batch(model.config, [[(across, 1)]])
    names = ("input_ids", "images", "images_seq_mask", "images_spatial_crop")
    whole = model.embed(*(given[name] for name in names))

    def work(model):
        encoded = []
        look = model.model.encode_views
        model.model.encode_views = lambda pixels: encoded.append(tuple(pixels.shape)) or look(pixels)
        return encoded, model.embed(*(given[name] for name in names))

    each = -(-across // ranks)
    for encoded, embeds in together(tmp_path, ranks, work):
        assert {shape[-1]: shape[0] for shape in encoded} == {256: 1, 192: each}
        assert (embeds - whole).abs().max() < 1e-5


def test_rank_0_leads_and_the_others_follow():
    """A Reader on rank 0; the others get its arguments, without the callback."""
    image = Image.open(sorted(PAGE.glob("*.png"))[0])
    alone = Reader.load("nano", "cpu", "fp32")
    said: list[str] = []

    def work(group):
        def load(*args):
            return tensor.load(*args, group=group)

        reader = Reader.load("nano", "cpu", "fp32", from_pretrained=load)
        if group.rank:
            return reader.model.follow()
        reader.model.leading = True
        first = reader.read(image, max_new_tokens=12, on_text=said.append)
        with pytest.raises(ValueError, match="max_new_tokens -1"):
            reader.read(image, max_new_tokens=-1)
        second = reader.read(image, max_new_tokens=6)
        reader.model.stop()
        return first, second

    (first, second), nothing = run(2, work)
    expected = alone.read(image, max_new_tokens=12)
    assert nothing is None and first.ids == expected.ids and second.ids == expected.ids[:6]
    assert first.confidence == pytest.approx(expected.confidence, abs=1e-4)
    assert "".join(said).strip() == first.text


def test_all_ranks_look_for_the_end_at_the_same_token():
    seen = []

    def work(model):
        model.device  # noqa: B018
        return model.generate(torch.tensor([[0, 5]]), max_new_tokens=40, look_every=LOOK_EVERY,
                              on_tokens=seen.append if model.group.rank == 0 else None)  # fmt: skip

    one, two = together(CHECKPOINT, 2, work)
    assert one.equal(two) and seen


def test_logits_that_are_not_finite_are_an_error_on_all_ranks(tmp_path):
    model = DeepseekOCRForCausalLM.random(tiny("deepseek-ocr"), seed=1).requires_grad_(False)
    model.model.layers[1].input_layernorm.weight.fill_(float("inf"))
    model.save_pretrained(tmp_path)

    def work(model):
        with pytest.raises(NonFiniteError, match=r"model\.layers\.1"):
            model.generate(torch.tensor([[0, 5]]), max_new_tokens=3)
        return model.idle, model.broken

    assert together(tmp_path, 2, work) == [(True, False)] * 2


def test_an_error_in_the_middle_leaves_the_model_broken():
    def broken(tokens):
        raise RuntimeError("the pipe is closed")

    def work(model):
        with pytest.raises(RuntimeError, match="the pipe is closed"):
            model.generate(torch.tensor([[0, 5]]), max_new_tokens=3, on_tokens=broken)
        return model.idle, model.broken

    assert together(CHECKPOINT, 2, work) == [(False, True)] * 2


def test_a_plan_that_spans_layers_steps_aside_and_says_so(golden_model):
    def spanning(*args):
        raise AssertionError("has no place for sums")

    def work(model):
        (line,) = model.unused()
        return line, model.generate(torch.tensor([[0, 5, 9]]), max_new_tokens=8)

    expected = golden_model.generate(torch.tensor([[0, 5, 9]]), max_new_tokens=8)
    for line, ids in together(CHECKPOINT, 2, work, plan={"decode_layer": spanning}):
        assert line.startswith("decode_layer of the plan is not used") and ids.equal(expected)


def test_other_implementations_of_slots_run_on_the_shapes_of_a_rank(golden_model):
    from deskocr_kit.operators.substitutes.registry import candidates

    plan = {"moe": candidates("moe")["gathered"], "rotary": candidates("rotary")["reference"]}
    expected = golden_model.generate(torch.tensor([[0, 5, 9]]), max_new_tokens=8)
    for ids in together(
        CHECKPOINT, 2, lambda model: model.generate(torch.tensor([[0, 5, 9]]), max_new_tokens=8), plan=plan
    ):
        assert ids.equal(expected)


def test_weights_of_8_bits_are_quantised_rank_by_rank():
    """Each rank rounds its own part, so logits differ from one process by rounding; all ranks agree."""

    def work(model):
        quantise(model, 8)
        with torch.no_grad():
            return model(torch.tensor([[0, 5, 9]])).logits, model.generate(
                torch.tensor([[0, 5, 9]]), max_new_tokens=8
            )

    whole = DeepseekOCRForCausalLM.from_pretrained(CHECKPOINT)
    with torch.no_grad():
        plain = whole(torch.tensor([[0, 5, 9]])).logits
        quantise(whole, 8)
        rounding = (whole(torch.tensor([[0, 5, 9]])).logits - plain).abs().max()
    (one, ids), (two, others) = together(CHECKPOINT, 2, work)
    assert one.equal(two) and ids.equal(others)
    assert 0 < (one - plain).abs().max() < 2 * rounding


def test_a_step_is_not_recorded():
    with pytest.raises(ValueError, match="not recorded"):
        together(CHECKPOINT, 2, lambda model: model.generate(torch.tensor([[0, 5]]), record=lambda run: run))


def test_the_part_of_a_rank_is_not_saved_as_a_checkpoint(tmp_path):
    def work(model):
        with pytest.raises(CheckpointError, match="not written.*are parts, first lm_head.weight"):
            model.save_pretrained(tmp_path / str(model.group.rank))

    together(CHECKPOINT, 2, work)
    assert list(tmp_path.iterdir()) == []
