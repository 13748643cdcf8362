"""Does a config.json belong to this family, and ask only for what the network has? No torch here.

The parts of a config.json are the top level, three objects in it, and the encoders in vision_config.width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .config_keys import (
    ENCODERS,
    IGNORED,
    LANGUAGE,
    LAYERS,
    MODEL_TYPES,
    NOISE,
    ONLY_IN,
    PROJECTOR,
    TOP,
    VISION,
    Key,
    brief,
    is_integer,
    is_names,
    single_id,
)
from .official import CHECKPOINTS
from .untrusted import shown

CHECKED_TOGETHER = {"head_dim", "mlp_layer_types"}  # with other keys, see `contradictions`


def normalised(top: Mapping, nested: Mapping) -> tuple[dict, dict]:
    """Both copies of the language keys, with one end token and one rope_theta in the top-level one.

    An end token may be stated as a list of one, and null at the top level means that of `language_config`.
    transformers 5 may write rope_theta into rope_parameters. Call `refusals` first.
    """
    top, nested = dict(top), dict(nested)
    ends = (single_id(part.get("eos_token_id")) for part in (top, nested))
    end = next((each for each in ends if each is not None), None)
    for part in (top, nested):
        theta = rope_theta(part)
        for name in ("rope_parameters", "rope_scaling"):
            part.pop(name, None)
        if theta is not None:
            top.setdefault("rope_theta", theta)
        part.pop("eos_token_id", None)
    return top if end is None else {**top, "eos_token_id": end}, nested


def rope_theta(part: Mapping) -> float | None:
    """The base of the rotary embedding in `rope_parameters` or `rope_scaling`, or None."""
    for key in ("rope_parameters", "rope_scaling"):
        if isinstance(part.get(key), dict) and "rope_theta" in part[key]:
            return part[key]["rope_theta"]
    return None


def parts(content: Mapping) -> Iterator[tuple[str, Mapping, Mapping[str, Key]]]:
    """(path of a part of config.json, its content, its list of keys), top level first."""
    named = content.get("architectures")
    named = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    own: dict[str, Key] = {}
    for name in named:
        own |= ONLY_IN.get(name, {}) if isinstance(name, str) else {}
    yield "", content, TOP | own
    for name, keys in (
        ("vision_config", VISION),
        ("projector_config", PROJECTOR),
        ("language_config", LANGUAGE | NOISE | {"architectures": IGNORED, "model_type": IGNORED} | own),
    ):
        if isinstance(content.get(name), dict):
            yield name, content[name], keys
    vision = content.get("vision_config")
    width = vision.get("width") if isinstance(vision, dict) else None
    if isinstance(width, dict):
        for name, keys in ENCODERS.items():
            if name in width:
                yield f"vision_config.width.{name}", width[name], keys


def refusals(content: Mapping) -> list[str]:
    """One line for each key whose value this network does not support, with the key's full name."""
    found = [another_model(content)] if another_model(content) else []
    for path, part, keys in parts(content):
        if not isinstance(part, Mapping):
            found.append(f"{path} is {brief(part)}, expected an object")
            continue
        for name, value in part.items():
            key = keys.get(name)
            if key is not None and not key.accepts(value):
                full = f"{path}.{name}" if path else name
                found.append(f"{full} {brief(value)} is not supported: {key.otherwise}")
    return [*found, *contradictions(content)]


def contradictions(content: Mapping) -> Iterator[str]:
    """Lines about keys that repeat what others state, and differ."""
    language = content.get("language_config")
    language = language if isinstance(language, dict) else {}

    def value(name: str):
        return content.get(name, language.get(name))

    width, heads, head = value("hidden_size"), value("num_attention_heads"), value("head_dim")
    if head is not None and is_integer(width) and is_integer(heads) and head != width / max(heads, 1):
        yield f"head_dim {brief(head)} is not supported: it is hidden_size / num_attention_heads here"
    if is_integer(width) and is_integer(heads) and heads > 0 and width % heads == 0 and width // heads % 2:
        yield f"num_attention_heads {heads} is not supported: the width of a head, {width // heads}, is odd"
    vocabulary = value("vocab_size")
    for name in ("bos_token_id", "eos_token_id", "image_token_id"):
        token = single_id(value(name))
        if token is not None and is_integer(vocabulary) and token >= vocabulary:
            yield f"{name} {token} is not supported: vocab_size is {vocabulary}"
    kinds, dense, layers = (
        value("mlp_layer_types"),
        value("first_k_dense_replace"),
        value("num_hidden_layers"),
    )
    if kinds is not None and is_integer(layers) and 0 < layers <= LAYERS:
        first = dense if is_integer(dense) else 1
        if kinds != ["dense"] * min(first, layers) + ["sparse"] * (layers - first):
            yield f"mlp_layer_types {brief(kinds)} is not supported: first_k_dense_replace is {brief(dense)}"
    for name, part in (("", content), ("language_config.", language)):
        theta = rope_theta(part)
        if theta is not None and theta != part.get("rope_theta", theta):
            yield f"{name}rope_theta {brief(part['rope_theta'])} and rope_parameters {brief(theta)} differ"
    ends = [part.get("eos_token_id") for part in (content, language) if "eos_token_id" in part]
    if ends and all(each is None for each in ends):
        yield f"eos_token_id null is not supported: {LANGUAGE['eos_token_id'].otherwise}"


def unknown(content: Mapping) -> list[str]:
    """The keys that are in no list and have a value, with their full names, sorted."""
    found = set()
    for path, part, keys in parts(content):
        if isinstance(part, Mapping):
            found |= {
                shown(f"{path}.{name}" if path else name, 80)
                for name, value in part.items()
                if name not in keys and name not in CHECKED_TOGETHER and value not in (None, False)
            }
    return sorted(found)


def another_model(content: Mapping) -> str:
    """The line for a config.json of another model, or ""."""
    named, kind = content.get("architectures"), content.get("model_type")
    known = [each.architecture for each in CHECKPOINTS.values()]
    names = [named] if isinstance(named, str) else named if is_names(named) else []
    if names and not set(names) & set(known):
        return f"architectures {brief(names)} is another model; this kit reads {', '.join(known)}"
    if not names and isinstance(kind, str) and kind not in MODEL_TYPES:
        return f"model_type {brief(kind)} is another model; this kit reads {', '.join(known)}"
    return ""


def without_noise(content: Mapping) -> dict:
    """The keys that DeepseekOCRConfig gets: the listed ones, without what transformers writes by itself.

    An unlisted key could have the name of one of its attributes or methods and replace it.
    """
    keep = TOP | dict.fromkeys(CHECKED_TOGETHER, IGNORED) | ONLY_IN["UnlimitedOCRForCausalLM"]
    return {name: value for name, value in content.items() if name in keep and name not in NOISE}
