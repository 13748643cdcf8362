"""The prompts that the model was trained on, by name, and free text."""

from __future__ import annotations

import difflib

IMAGE_TAG = "<image>"

PROMPTS = {
    "document": "<image>\n<|grounding|>Convert the document to markdown.",
    "ocr": "<image>\n<|grounding|>OCR this image.",
    "free": "<image>\nFree OCR.",
    "figure": "<image>\nParse the figure.",
    "describe": "<image>\nDescribe this image in detail.",
    "locate": "<image>\nLocate <|ref|>{target}<|/ref|> in the image.",
}


def resolve_prompt(text_or_name: str, target: str | None = None) -> str:
    """Full prompt for a name in PROMPTS; any other text passes through unchanged.

    target: what "locate" shall find. Raises ValueError for an empty prompt, a target missing or out of
    place, and one mistyped word ("documnet"), which would otherwise reach the model as a prompt it has
    never seen.
    """
    if not isinstance(text_or_name, str) or not text_or_name.strip():
        raise ValueError(f"the prompt is empty; give text or one of {', '.join(PROMPTS)}")
    key = text_or_name.strip().lower()
    prompt = PROMPTS.get(key, text_or_name)
    if "{target}" in prompt:
        return prompt.replace("{target}", _checked_target(target))
    if target is not None:
        raise ValueError(f'only the prompt "locate" takes a target, not {text_or_name!r}')
    if prompt is text_or_name and key.isalpha():
        near = difflib.get_close_matches(key, PROMPTS, n=1, cutoff=0.8)
        if near and key not in PROMPTS:
            raise ValueError(f"unknown prompt name {text_or_name!r}; did you mean {near[0]!r}?")
    return prompt


def _checked_target(target: str | None) -> str:
    if target is None or not target.strip():
        raise ValueError('the prompt "locate" needs a target: what shall be found?')
    if "<|" in target or IMAGE_TAG in target:
        raise ValueError(f"the target {target!r} contains a special tag; give plain words")
    return target.strip()
