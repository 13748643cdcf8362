"""The prompts on which the model was trained, by name, and free text."""

from __future__ import annotations

import difflib

from .official import CHECKPOINTS, DEEPSEEK_OCR, Checkpoint

IMAGE_TAG = "<image>"

PROMPTS = dict(DEEPSEEK_OCR.prompts)


def resolve_prompt(
    text_or_name: str, target: str | None = None, checkpoint: Checkpoint = DEEPSEEK_OCR
) -> str:
    """The full prompt for a name in the prompts of a model; any other text is returned unchanged.

    Args:
        target: what the prompt "locate" searches for.
        checkpoint: the model of the family; by default DeepSeek-OCR, whose prompts are PROMPTS.

    Raises:
        ValueError: the prompt is empty; a target is missing, or given for another prompt; or the prompt is a
            single mistyped word ("documnet") or a name that only another model has, which would otherwise
            reach the model as a prompt.
    """
    prompts = PROMPTS if checkpoint is DEEPSEEK_OCR else checkpoint.prompts
    if not isinstance(text_or_name, str) or not text_or_name.strip():
        raise ValueError(f"the prompt is empty; give text or one of {', '.join(prompts)}")
    key = text_or_name.strip().lower()
    prompt = prompts.get(key, text_or_name)
    if "{target}" in prompt:
        return prompt.replace("{target}", _checked_target(target))
    elsewhere = checkpoint is not DEEPSEEK_OCR and any(key in each.prompts for each in CHECKPOINTS.values())
    if elsewhere and key not in prompts:
        raise ValueError(
            f"{checkpoint.title} has no prompt {key!r}; choose one of {', '.join(prompts)}, or give text"
        )
    if target is not None:
        raise ValueError(f'only the prompt "locate" takes a target, not {text_or_name!r}')
    if prompt is text_or_name and key.isalpha():
        near = difflib.get_close_matches(key, prompts, n=1, cutoff=0.8)
        if near and key not in prompts:
            raise ValueError(f"unknown prompt name {text_or_name!r}; did you mean {near[0]!r}?")
    return prompt


def _checked_target(target: str | None) -> str:
    if target is None or not target.strip():
        raise ValueError('the prompt "locate" needs a target: the text to find')
    if "<|" in target or IMAGE_TAG in target:
        raise ValueError(f"the target {target!r} contains a special tag; use plain words")
    return target.strip()
