"""DeepSeek-OCR-2 and Unlimited-OCR against transformers' implementations, with tiny random weights.

transformers shares no code with ours, and reads a folder that `save_pretrained` wrote with its own conversion
of names. Logits must agree within 5e-4 in fp32, and 40 greedy tokens must be equal.

Two differences are known. With a window of 1 transformers 5.23 raises. Once a window smaller than the answer
has moved, it sees padding (it looks up the mask of a prompt position at the position plus the offset of the
window), so a padded sample is compared with its own run alone. tests/model/test_ring.py holds both to a mask.
"""

from __future__ import annotations

import importlib.util
import re

import pytest
import torch

from deskocr_kit.baselines.transformers_model import load_peer, peer_inputs
from model import DeepseekOCRForCausalLM
from model.modes import Mode
from tests.baselines.agreement import DTYPES, measure
from tests.helpers.family import NAMES, alone, batch, tiny
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.skipif(  # importorskip would import it in every process of pytest-xdist
    importlib.util.find_spec("transformers.models.deepseek_ocr2") is None,
    reason="this transformers has no deepseek_ocr2 (5.23 has it)",
)

LOGITS = 5e-4
NEW = 40
SECOND, UNLIMITED = NAMES[1:]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(ours, transformers') for a name and a window, loaded from the same folder."""
    made = {}

    def get(name: str, window: int | None = None):
        if (name, window) not in made:
            config = tiny(name, window)
            folder = tmp_path_factory.mktemp(name)
            DeepseekOCRForCausalLM.random(config, seed=3).save_pretrained(folder)
            made[name, window] = DeepseekOCRForCausalLM.from_pretrained(folder), load_peer(folder, config)
        return made[name, window]

    return get


def translated(model, given: dict) -> dict:
    return peer_inputs(given, rows=model.config.clip is not None)


def tokens(model, peer, given: dict, ngram: int) -> tuple[list, list]:
    n = given["input_ids"].shape[1]
    ours = model.generate(**given, max_new_tokens=NEW, eos_token_id=None, no_repeat_ngram_size=ngram)
    theirs = peer.generate(
        **translated(model, given), max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False,
        no_repeat_ngram_size=ngram, eos_token_id=None, pad_token_id=2,
    )  # fmt: skip
    return ours[:, n:].tolist(), theirs[:, n:].tolist()


def check_logits(model, peer, given: dict) -> None:
    attended = given["attention_mask"].bool()
    positions = (given["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        ours = model(**given).logits
        theirs = peer(**translated(model, given), position_ids=positions).logits
    torch.testing.assert_close(ours[attended], theirs[attended], atol=LOGITS, rtol=0)


BATCHES = {
    "one page": [[(1, 1)]],
    "tiles": [[(2, 3)]],
    "a batch": [[(3, 1)], [], [(1, 1)]],
    "three pages in a sample": [[(1, 1), (1, 1), (1, 1)], [(1, 2)]],
}


@pytest.mark.parametrize("name", [SECOND, UNLIMITED])
@pytest.mark.parametrize("samples", BATCHES.values(), ids=BATCHES)
def test_logits_and_tokens(pair, name, samples):
    model, peer = pair(name, None)
    given = batch(model.config, samples)
    check_logits(model, peer, given)
    for ngram in (0, 2):
        ours, theirs = tokens(model, peer, given, ngram)
        assert ours == theirs


@pytest.mark.parametrize("window", [2, 3, 17, NEW - 1, NEW, 3 * NEW])
@pytest.mark.parametrize("ngram", [0, 2])
def test_windows_from_small_to_longer_than_the_answer(pair, window, ngram):
    model, peer = pair(UNLIMITED, window)
    given = batch(model.config, [[(1, 1), (1, 1)]])
    ours, theirs = tokens(model, peer, given, ngram)
    assert ours == theirs
    assert len({*ours[0]}) > 5  # an answer of one token would prove little


@pytest.mark.parametrize("window", [2, 17])
def test_padding_stays_invisible_when_the_window_moves(pair, window):
    model, peer = pair(UNLIMITED, window)
    given = batch(model.config, [[(2, 1)], [(1, 1)], [(1, 1), (1, 1)]])
    together, _ = tokens(model, peer, given, 2)
    for i, row in enumerate(together):
        ours, theirs = tokens(model, peer, alone(given, i), 2)
        assert ours == theirs
        assert row == theirs[0]


def test_the_windowed_guard(pair, monkeypatch):
    """n-grams are compared inside the last tokens only: `no_repeat_ngram_window_size` of transformers."""
    model, peer = pair(UNLIMITED, 17)
    given = batch(model.config, [[(1, 1)]])
    n = given["input_ids"].shape[1]
    ours = model.generate(
        **given, max_new_tokens=NEW, eos_token_id=None, no_repeat_ngram_size=2, ngram_window=9
    )
    monkeypatch.setattr(peer.generation_config, "no_repeat_ngram_window_size", 9, raising=False)
    _, theirs = tokens(model, peer, given, 2)
    assert ours[:, n:].tolist() == theirs


@pytest.fixture(scope="module")
def agreement() -> dict:
    return {name: measure(name, [(2, 1)]) for name in NAMES}


@pytest.mark.parametrize("file", ["README.md", "README.zh-CN.md"])
def test_the_readme_states_bounds_of_the_agreement(agreement, file):
    """One row per model; tests.baselines.agreement measures. One grid here, all of them in the command."""
    text = (ROOT / file).read_text(encoding="utf-8")
    for name in NAMES:
        row = re.search(rf"^\| .+ \| `model/{name}` \|(.+)$", text, re.MULTILINE)
        bounds = [float(cell.strip(" %")) / 100 for cell in row[1].split("|")[:3]]
        found = agreement[name]
        for (_, dtype), figure in found.items():
            bound = bounds[list(DTYPES).index(dtype)]
            assert figure <= bound, (name, dtype, figure)


@pytest.mark.parametrize("name", [SECOND, UNLIMITED])
def test_a_folder_that_transformers_wrote_loads_bit_for_bit(pair, name, tmp_path):
    """transformers writes the official names; it has no patch embedding of CLIP, which is never used."""
    model, peer = pair(name, None)
    peer.save_pretrained(tmp_path)
    model.config.to_json_file(tmp_path / "config.json", use_diff=False)
    again = DeepseekOCRForCausalLM.from_pretrained(tmp_path)
    for (key, ours), theirs in zip(model.named_parameters(), again.parameters(), strict=True):
        if "patch_embedding" in key:
            assert not theirs.any()
        else:
            assert ours.equal(theirs), key


def test_views_of_the_official_size(pair):
    """144 queries for a tile of 768 pixels, 256 for the view of 1024; the other tests have 144 for both."""
    model, peer = pair(SECOND, None)
    mode = Mode("test", 1024, 768, True, model.config.checkpoint)
    check_logits(model, peer, batch(model.config, [[(1, 2)]], mode=mode))
