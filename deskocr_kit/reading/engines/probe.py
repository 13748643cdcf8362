"""Before the first page: which server, which model, which prompt; a test picture; the n-gram guard.

One test picture finds most of what goes wrong between a client and a server without a word: a wrong chat
template, a placeholder too many, tags that are left out, the wrong model. It is read twice. The second
request forbids n-grams of GUARD_SIZE tokens, and the text repeats longer ones: if the answer is the same, the
server's n-gram guard is off, and every looping page would loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from model.inference import Reading
from model.official import CHECKPOINTS, DEEPSEEK_OCR, Checkpoint
from model.results import to_markdown
from model.untrusted import shown

from ..text_distance import cer
from .answers import BadAnswer, entries_of, first_choice, reading_of
from .client import Client
from .failures import Refused, ServerFailed, TooSlow, Unusable
from .options import EngineOptions
from .requests import GUARDS, KINDS, How, Served, picture, request

KNOWN = Path(__file__).with_name("known.png")
TEXT = "Known page 7341\nred green blue 52\nred green blue 52\nred green blue 52\nThe end"
WRONG = 0.2  # CER above which the text counts as wrong
GUARD_SIZE = 3  # tokens; the text repeats longer n-grams, in every vocabulary
TOKENS = 256  # for the test picture
NAMES = 10  # of models in a message

_NOT_RAW = "the server's log-probabilities are taken behind the n-gram guard"
_NONE = "the server sends no log-probabilities"


def probe(client: Client, options: EngineOptions, checkpoint: str | None, mode: str | None = None) -> Served:
    """What is known about the server of `client`, after some questions and two readings.

    checkpoint: a name in CHECKPOINTS, or None: by the name of the model.

    Raises Unusable.
    """
    listed = client.get(f"{client.base_url}/models", patient=True)
    server, version = which_server(client, options.server)
    model, root = which_model(listed, options.served, server)
    official = which_checkpoint(checkpoint, model, root)
    served = Served(server, official, model, version)
    served = replace(served, template=template_of(client, served), warnings=name_warnings(served))
    return known_picture(client, served, options.unchecked)


def which_server(client: Client, asked: str | None) -> tuple[str, str]:
    """(name in KINDS, version or ""). Raises Unusable if it is not asked for and the server does not tell."""
    root = root_of(client)

    def vllm() -> str | None:
        return text_in(client.get(f"{root}/version"), "version")

    def sglang() -> str | None:
        found = client.get(f"{root}/get_server_info") or client.get(f"{root}/server_info")
        if found is None and client.get(f"{root}/get_model_info") is not None:
            return ""
        return text_in(found, "version")

    def transformers() -> str | None:
        paths = (client.get(f"{root}/openapi.json") or {}).get("paths")
        return "" if isinstance(paths, dict) and "/load_model" in paths else None

    questions: dict[str, Callable[[], str | None]] = {
        "vllm": vllm, "sglang": sglang, "transformers": transformers,
    }  # fmt: skip
    if asked is not None:
        return asked, questions[asked]() or ""
    for name, question in questions.items():
        if (version := question()) is not None:
            return name, version
    raise Unusable(f"{client.base_url} does not tell which server it is; say --server {'|'.join(KINDS)}")


def root_of(client: Client) -> str:
    """Where the server answers questions that are not in the API of OpenAI."""
    return client.base_url.removesuffix("/v1")


def text_in(found: dict[str, Any] | None, name: str) -> str | None:
    value = None if found is None else found.get(name)
    return shown(value, 80) if isinstance(value, str) else None


def which_model(listed: dict | None, asked: str | None, server: str) -> tuple[str | None, str]:
    """(name in requests, folder or repository of its weights). Raises Unusable if it has to be asked for."""
    data = listed.get("data") if isinstance(listed, dict) else None
    models = [each for each in data if isinstance(each, dict)] if isinstance(data, list) else []
    names = [each["id"] for each in models if isinstance(each.get("id"), str)]
    roots = {each.get("id"): each.get("root") for each in models}
    if server == "transformers":  # it lists the cache of this machine, and not the folder that it serves
        return asked, ""
    shown_names = ", ".join(shown(name, 80) for name in names[:NAMES]) or "none"
    if asked is None and len(names) != 1:
        raise Unusable(f"the server serves several models or none; choose one with --served: {shown_names}")
    if asked is not None and names and asked not in names:
        raise Unusable(f"the server has no model {asked!r}; it serves {shown_names}")
    name = asked or names[0]
    root = roots.get(name)
    return name, root if isinstance(root, str) else ""


def which_checkpoint(asked: str | None, *names: str | None) -> Checkpoint:
    """The model of the family: the one that was asked for by its name, else by the names at the server."""
    if asked is not None and (known := CHECKPOINTS.get(Path(asked).name)) is not None:
        return known
    text = " ".join(name for name in names if name).lower().replace("_", "-")
    if "unlimited" in text:
        return CHECKPOINTS["unlimited-ocr"]
    if "ocr-2" in text or "ocr2" in text:
        return CHECKPOINTS["deepseek-ocr-2"]
    return DEEPSEEK_OCR


def template_of(client: Client, served: Served) -> str:
    """The prompt that vLLM makes of a request, as its POST /tokenize shows it; "" if it does not."""
    if served.server != "vllm":
        return ""
    messages = [{"role": "user", "content": [{"type": "text", "text": "Free OCR."}]}]
    found = client.post(
        f"{root_of(client)}/tokenize",
        {"model": served.model, "messages": messages, "return_token_strs": True},
    )
    tokens = found.get("token_strs") if found is not None else None
    if not isinstance(tokens, list) or not all(isinstance(each, str) for each in tokens[:64]):
        return ""
    return shown("".join(tokens[:64]), 300)


def name_warnings(served: Served) -> tuple[str, ...]:
    """vLLM takes the template without roles only if the served name holds "ocr"."""
    if served.server == "vllm" and "ocr" not in (served.model or "").lower():
        return (
            f"the model is served as {served.model!r}: vLLM chooses the chat template by the name, so that "
            "answers may be empty; serve it with --served-model-name deepseek-ocr",
        )
    if served.server == "transformers":
        return ("transformers' server leaves out special tokens: boxes and table cells of official weights",)
    return ()


def known_picture(client: Client, served: Served, unchecked: bool) -> Served:
    """Read the test picture; then with a guard that its text must break. Returns what was learnt."""
    size, window = GUARDS[served.checkpoint.name]
    prompt, (png, _) = served.checkpoint.prompts["free"], picture(known(), "gundam", served.checkpoint)
    how = How(TOKENS, size, window)
    try:
        answer, served = first_answer(client, served, png, prompt, how)
        reading = reading_of(answer, served, 0.0)
    except (BadAnswer, ServerFailed, TooSlow) as error:
        raise Unusable(f"the test picture was not read: {error}{hint(served)}") from None
    if (wrong := difference(reading)) > WRONG:
        what = f"the test picture was read as {shown(reading.text, 120)!r}, CER {wrong:.2f}{hint(served)}"
        if not unchecked:
            raise Unusable(f"{what}; --unchecked goes on")
        served = replace(served, warnings=(*served.warnings, what))
    if not served.kind.guard:
        why = f"{served.server} has no n-gram guard for single requests: pages may loop"
        return replace(served, guard=False, why_not=_NONE, warnings=(*served.warnings, why))
    return guarded(client, served, png, prompt, reading.raw)


def difference(reading: Reading) -> float:
    """The CER of a reading of the test picture. Boxes have the text in them (a ref), or behind them."""
    inside = "\n".join(line for line, _ in reading.scores.lines())
    return min(cer(inside, TEXT), cer(to_markdown(reading.text), TEXT))


def first_answer(client: Client, served: Served, png: bytes, prompt: str, how: How) -> tuple[dict, Served]:
    """(answer, served): without the whitelist, if the server refuses a list of ids."""
    try:
        return client.ask(request([png], prompt, served, how)).json, served
    except Refused as refusal:
        if not served.kind.guard:
            raise
        bare = replace(served, whitelist=False)
        try:
            answer = client.ask(request([png], prompt, bare, how)).json
        except Refused:
            raise refusal from None
        why = f"the server takes no list of ids: cells of tables count for the n-gram guard ({refusal})"
        return answer, replace(bare, warnings=(*served.warnings, why))


def guarded(client: Client, served: Served, png: bytes, prompt: str, without: str) -> Served:
    """Whether the guard works, and whether the log-probabilities are those before it."""
    how = How(TOKENS, GUARD_SIZE, TOKENS, top_logprobs=2)
    try:
        answer = client.ask(request([png], prompt, served, how)).json
        again = reading_of(answer, served, 0.0)
        entries = entries_of(first_choice(answer).get("logprobs"))
    except (BadAnswer, ServerFailed, TooSlow) as error:
        why = f"the n-gram guard could not be tried: {error}"
        return replace(served, guard=False, why_not=_NONE, warnings=(*served.warnings, why))
    if again.raw.strip() == without.strip():
        why = f"the n-gram guard of the server is off, pages may loop: {START[served.server]}"
        return replace(
            served,
            guard=False,
            logprobs=bool(entries),
            why_not="" if entries else _NONE,
            warnings=(*served.warnings, why),
        )
    # The guard has forced some token here. Before it, another one was more probable; behind it, none.
    raw = any(not chosen_is_best(each) for each in entries)
    return replace(served, guard=True, logprobs=raw, why_not="" if raw else _NOT_RAW if entries else _NONE)


def chosen_is_best(entry: dict[str, Any]) -> bool:
    """Whether no token of `top_logprobs` is more probable than the one that was chosen."""
    others = entry.get("top_logprobs")
    values = (
        [each.get("logprob") for each in others if isinstance(each, dict)] if isinstance(others, list) else []
    )
    return not any(isinstance(v, (int, float)) and v > entry["logprob"] + 1e-3 for v in values)


def known() -> Image.Image:
    with Image.open(KNOWN) as image:
        return image.convert("RGB")


#: What switches the guard of a server on.
START = {
    "vllm": "start it with --logits_processors vllm.model_executor.models.deepseek_ocr:"
    "NGramPerReqLogitsProcessor (unlimited_ocr: for Unlimited-OCR)",
    "sglang": "start it with --enable-custom-logit-processor",
}


def hint(served: Served) -> str:
    """What to look at if the test picture is not read."""
    shows = f" The server's prompt: {served.template!r}." if served.template else ""
    name = f" Its model is called {served.model!r}." if served.model else ""
    return (
        f". Is it a model of this family ({served.checkpoint.title} is assumed; --model names another), with "
        f"its own chat template?{name}{shows} See docs/engines.md"
    )
