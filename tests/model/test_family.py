"""One loader for three models: configs, names and shapes, defaults; several pages; the other box grammar."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from PIL import Image

from deskocr_kit.reading.reader import Reader
from model import DeepseekOCRConfig, DeepseekOCRForCausalLM, official_shapes
from model.boxes import parse_boxes
from model.confidence import Scores
from model.inference import Reading, defaults
from model.official import CHECKPOINTS, DEEPSEEK_OCR, UNLIMITED_OCR
from model.pages import by_sample
from model.processing import build_inputs, tokenize_prompt
from model.prompts import resolve_prompt
from model.query_encoder import reading_mask
from model.results import to_markdown
from model.several_pages import by_page, page_spans, split_pages
from model.vision import TOWERS
from tests.helpers.family import NAMES, alone, batch, tiny
from tests.helpers.paths import NANO


# ---------------------------------------------------------------------- which model
@pytest.mark.parametrize("name", NAMES)
def test_architectures_choose_the_model_and_its_official_sizes(name):
    official = CHECKPOINTS[name]
    config = DeepseekOCRConfig(architectures=[official.architecture])
    assert config.checkpoint is official and config.decoder == DeepseekOCRConfig.official(name).decoder
    shapes = official_shapes(config)
    assert (len(shapes), sum(map(math.prod, shapes.values()))) == (official.tensors, official.parameters)
    assert official.bytes == 2 * official.parameters
    assert config.to_dict()["model_type"] == official.model_type
    assert DeepseekOCRConfig(**config.to_dict()).to_dict() == config.to_dict()


def test_no_architecture_is_the_first_model_and_another_is_refused():
    assert DeepseekOCRConfig().checkpoint is DEEPSEEK_OCR
    assert DeepseekOCRConfig(architectures=None, model_type="deepseek_vl_v2").checkpoint is DEEPSEEK_OCR
    with pytest.raises(ValueError, match=r"\['LlamaForCausalLM'\] is not a model of this family"):
        DeepseekOCRConfig(architectures=["LlamaForCausalLM"])


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_at_full_size_are_those_of_transformers(name):
    """Live, on the meta device: the names that transformers writes; CLIP's unused patch embedding is not."""
    pytest.importorskip("transformers.models.deepseek_ocr2", reason="needs transformers 5.23")
    from transformers.core_model_loading import revert_weight_conversion

    from deskocr_kit.baselines.transformers_model import IGNORED, peer_classes, peer_config

    config = DeepseekOCRConfig.official(name)
    with torch.device("meta"):
        peer = peer_classes(config)[1](peer_config(config))
    theirs = {
        key: list(value.shape) for key, value in revert_weight_conversion(peer, peer.state_dict()).items()
    }
    ours = official_shapes(config)
    assert theirs == {key: shape for key, shape in ours.items() if key not in IGNORED}


@pytest.mark.parametrize("name", NAMES)
def test_save_and_load_are_bit_equal(name, tmp_path):
    model = DeepseekOCRForCausalLM.random(tiny(name), dtype=torch.bfloat16, seed=5)
    model.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    official = CHECKPOINTS[name]
    assert (stored["architectures"], stored["model_type"]) == ([official.architecture], official.model_type)
    again = DeepseekOCRForCausalLM.from_pretrained(tmp_path)
    assert again.config.checkpoint is official
    for (key, a), b in zip(model.named_parameters(), again.parameters(), strict=True):
        assert a.equal(b), key


def test_the_window_has_two_names_and_two_places():
    name = [UNLIMITED_OCR.architecture]
    assert DeepseekOCRConfig(architectures=name).decoder.window == 128
    assert DeepseekOCRConfig(architectures=name, sliding_window_size=7).decoder.window == 7
    assert DeepseekOCRConfig(architectures=name, language_config={"sliding_window": 9}).decoder.window == 9
    assert DeepseekOCRConfig(sliding_window=7).decoder.window is None  # DeepSeek-OCR sees everything
    for bad in (0, -1, 2.5, "128"):
        with pytest.raises(ValueError, match="sliding_window"):
            DeepseekOCRConfig(architectures=name, sliding_window=bad)


def test_the_parts_of_the_query_encoder_must_fit():
    for width, message in (
        ({"qwen2-0-5b": {"kv_heads": 4}}, "multiple of kv_heads 4"),
        ({"qwen2-0-5b": {"dim": 897}}, "multiple of its heads"),
        ({"sam_vit_b": {"downsample_channels": [512, 1024]}}, "must equal the width of qwen2-0-5b, 896"),
    ):
        with pytest.raises(ValueError, match=message):
            DeepseekOCRConfig(architectures=["DeepseekOCR2ForCausalLM"], vision_config={"width": width})


def test_every_encoder_key_has_a_tower():
    assert {official.encoder_key for official in CHECKPOINTS.values()} == set(TOWERS)


def test_the_reading_mask():
    """Places see all places; a query sees the places and the queries up to itself."""
    places, queries = 4, 3
    expected = [
        [(k < places) or (q >= places and k <= q) for k in range(places + queries)]
        for q in range(places + queries)
    ]
    assert reading_mask(places, queries, torch.device("cpu"))[0, 0].tolist() == expected


# ---------------------------------------------------------------------- defaults
def test_settings_prompts_and_guards_are_those_of_the_model(tmp_path):
    model = DeepseekOCRForCausalLM.random(tiny("unlimited-ocr"))
    model.save_pretrained(tmp_path)
    assert defaults(tmp_path) == {
        "mode": "gundam", "max_new_tokens": 32768, "no_repeat_ngram_size": 35, "ngram_window": 128,
    }  # fmt: skip
    assert resolve_prompt("free", None, UNLIMITED_OCR) == "<image>document parsing."
    second = CHECKPOINTS["deepseek-ocr-2"]
    assert resolve_prompt("free", None, second) == "<image>\nFree OCR."
    assert second.modes["gundam"] == (1024, 768, True)
    with pytest.raises(ValueError, match="DeepSeek-OCR-2 has no prompt 'locate'"):
        resolve_prompt("locate", "a", second)


# ---------------------------------------------------------------------- several pages
class Words:
    """One token per word."""

    def encode(self, text, add_special_tokens=False):
        return [len(word) for word in text.split()]

    def convert_tokens_to_ids(self, token):
        return 99 if token == "<image>" else None

    def decode(self, ids, skip_special_tokens=False):
        return "".join(chr(i) for i in ids)


def test_one_tag_stands_for_all_pages_or_each_has_its_own():
    ids, mask = tokenize_prompt(Words(), "<image>Multi page parsing.", [2, 3], image_token_id=99)
    assert ids == [0, 99, 99, 99, 99, 99, 5, 4, 8] and mask == [i == 99 for i in ids]
    ids, mask = tokenize_prompt(Words(), "a <image> bc <image> d", [2, 1], image_token_id=99)
    assert ids == [0, 1, 99, 99, 2, 99, 1] and mask == [i == 99 for i in ids]
    with pytest.raises(ValueError, match="2 <image> tags for 3 pages"):
        tokenize_prompt(Words(), "<image><image>", [1, 1, 1], image_token_id=99)


def test_pages_of_one_sample_have_no_tiles():
    white = Image.new("RGB", (2000, 1500), "white")
    inputs = build_inputs(
        Words(), "<image>Multi page parsing.", [[white, white], white], "gundam", checkpoint=UNLIMITED_OCR
    )
    assert inputs["images_spatial_crop"] == [[[1, 1], [1, 1]], [4, 3]]
    assert [len(pages) for pages in inputs["images"]] == [2, 2]  # two pages; tiles and view
    assert int(inputs["images_seq_mask"][0].sum()) == 2 * 273
    with pytest.raises(ValueError, match="DeepSeek-OCR reads one page per prompt"):
        build_inputs(Words(), "<image>a", [[white, white]])


def test_grids_of_samples_come_as_tensors_or_lists():
    page = (torch.zeros(1), torch.zeros(1))
    expected = [[(page, (2, 1))], [(page, (1, 1))]]
    for crops in (torch.tensor([[2, 1], [1, 1]]), [[2, 1], [1, 1]], [torch.tensor([2, 1]), [[1, 1]]]):
        assert by_sample([page, [page]], crops) == expected
    with pytest.raises(ValueError, match="sample 0: 2 pages, but 1 grids"):
        by_sample([[page, page]], [[1, 1]])
    with pytest.raises(ValueError, match="1 entries for 2 samples"):
        by_sample([page, page], [[1, 1]])


def test_a_wrong_number_of_placeholders_names_the_sample():
    model = DeepseekOCRForCausalLM.random(tiny("unlimited-ocr"))
    given = batch(model.config, [[(1, 1), (1, 1)]])
    given["images"][0].append(given["images"][0][0])
    given["images_spatial_crop"][0].append([1, 1])
    with pytest.raises(
        ValueError, match="sample 0: 42 image placeholders in the text, but its 3 pages give 63"
    ):
        model(**given)


@pytest.mark.parametrize(
    ("text", "count", "pages"),
    [
        ("<PAGE>a\n<PAGE>b", 2, ["a", "b"]),
        ("a<PAGE>b", 2, ["a", "b"]),
        (" \n<PAGE>a", 1, ["a"]),
        ("a<PAGE>b<PAGE>c", 2, ["a", "b<PAGE>c"]),
        ("a", 3, ["a", "", ""]),
        ("", 2, ["", ""]),
        ("<PAGE><PAGE>b", 2, ["", "b"]),
    ],
)
def test_the_answer_is_split_into_pages(text, count, pages):
    assert split_pages(text, count) == pages
    assert len(page_spans(text, count)) == count


def test_a_reading_per_page_keeps_tokens_spans_and_confidence():
    text = "<PAGE>ab\n<PAGE>cd"
    ids = [ord(c) for c in text] + [1]
    logprobs = [-0.01 * i for i in range(len(ids))]
    scores = Scores.of(Words(), ids, 1, logprobs)
    whole = Reading(text, text, ids, 9, 8, (1, 1), True, 2.0, scores.logprobs, scores.spans)
    first, second = by_page(whole, Words(), 2)
    assert (first.text, second.text) == ("ab", "cd")
    assert (first.truncated, second.truncated) == (False, True)
    assert first.ids + second.ids == ids and second.ids[-1] == 1
    for reading in (first, second):
        shown = [reading.text[a:b] for a, b in reading.spans]
        assert "".join(shown) == reading.text and reading.confidence is not None
    assert first.seconds + second.seconds == pytest.approx(2.0)


@pytest.fixture(scope="module")
def unlimited_nano(tmp_path_factory) -> Reader:
    """nano's weights as Unlimited-OCR: the same network, with a window."""
    folder = tmp_path_factory.mktemp("unlimited")
    for file in NANO.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["UnlimitedOCRForCausalLM"], "sliding_window": 64}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").unlink()
    return Reader.load(folder, "cpu", "fp32")


def test_infer_takes_a_list_of_files_and_writes_a_folder_per_page(unlimited_nano, tmp_path):
    files = sorted((NANO / "pages").glob("*.png"))[:2]
    reader = unlimited_nano
    text = reader.model.infer(
        reader.tokenizer, "<image>Multi page parsing.", files, tmp_path, save_results=True, max_new_tokens=3
    )
    assert isinstance(text, str)
    assert {path.name for path in tmp_path.iterdir()} == {"page-1", "page-2"}
    with pytest.raises(ValueError, match="one page per prompt"):
        other = Reader.load("nano", "cpu", "fp32")
        other.model.infer(other.tokenizer, "<image>a", files)


def test_the_reader_reads_pages_together_and_one_page_as_before(unlimited_nano):
    pages = [Image.open(path) for path in sorted((NANO / "pages").glob("*.png"))[:2]]
    readings = unlimited_nano.read_together(pages, max_new_tokens=4)
    assert len(readings) == 2 and sum(len(reading.ids) for reading in readings) == 4
    assert readings[0].image_tokens == 273
    (one,) = unlimited_nano.read_together(pages[:1], "<image>\nFree OCR.", "tiny", max_new_tokens=12)
    same = Reader.load("nano", "cpu", "fp32").read(pages[0], "free", "tiny", max_new_tokens=12)
    assert one.ids == same.ids
    with pytest.raises(ValueError, match="read fewer"):
        unlimited_nano.read_together([pages[0]] * 200)


# ---------------------------------------------------------------------- boxes
def test_boxes_with_a_type():
    text = (
        "<|det|>title [10, 20, 300, 400]<|/det|>A heading\n<|det|>image [0, 0, 500, 999]<|/det|>"
        "<PAGE><|det|>image_caption [1,2,3,4]<|/det|>tail"
    )
    refs = parse_boxes(text)
    assert [(ref.label, ref.boxes) for ref in refs] == [
        ("title", [(10, 20, 300, 400)]),
        ("image", [(0, 0, 500, 999)]),
        ("image_caption", [(1, 2, 3, 4)]),
    ]
    assert [text[ref.span[0] : ref.span[1]][-8:] for ref in refs] == ["<|/det|>"] * 3
    assert refs[1].is_image and text[slice(*refs[0].places[0])] == "[10, 20, 300, 400]"
    assert to_markdown(text).startswith("A heading\n![](images/0.jpg)\n")


def test_both_grammars_in_one_text_in_order():
    first = "<|ref|>title<|/ref|><|det|>[[1, 2, 3, 4]]<|/det|>"
    text = f"<|det|>text [5, 6, 7, 8]<|/det|>x\n{first}\n<|det|>table [9, 9, 20, 20]<|/det|>"
    assert [ref.label for ref in parse_boxes(text)] == ["text", "title", "table"]


@pytest.mark.parametrize(
    "text",
    [
        "<|det|>text [1, 2, 3]<|/det|>",
        "<|det|>text [a, b, c, d]<|/det|>",
        "<|det|>text [9, 9, 9, 9]<|/det|>",
        "<|det|>text []<|/det|>",
    ],
)
def test_a_broken_box_is_reported_and_dropped(text):
    (ref,) = parse_boxes(text)
    assert not ref.boxes and ref.problems


def test_unclosed_boxes_are_text():
    assert parse_boxes("<|det|>text [1, 2, 3, 4]") == []
    assert parse_boxes("<|det|>" * 20_000 + "text [" * 20_000) == []


def test_text_of_a_typed_box_has_a_confidence():
    text = "<|det|>text [1, 2, 3, 4]<|/det|>abc"
    scores = Scores(text, [-1.0] * len(text), [(i, i + 1) for i in range(len(text))])
    (((box, place),),) = scores.boxes()
    assert box == pytest.approx(math.exp(-1)) and place == pytest.approx(math.exp(-1))
    assert scores.lines()[0][0] == "textabc"


def test_samples_alone_equal_the_batch():
    """DeepSeek-OCR-2 in a padded batch."""
    model = DeepseekOCRForCausalLM.random(tiny("deepseek-ocr-2"))
    given = batch(model.config, [[(2, 1)], [(1, 1)]])
    n = given["input_ids"].shape[1]
    together = model.generate(**given, max_new_tokens=9, eos_token_id=None)[:, n:]
    for i in range(2):
        one = alone(given, i)
        new = model.generate(**one, max_new_tokens=9, eos_token_id=None)[0, one["input_ids"].shape[1] :]
        assert together[i].equal(new)
