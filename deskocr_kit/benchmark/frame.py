"""The result of a benchmark as a pandas table, for questions that the report does not answer."""

from __future__ import annotations

from .summary import tpot

PAGE = ("name", "category", "characters", "vision_tokens", "prompt_tokens", "new_tokens", "cer", "ned",
        "truncated", "loop")  # fmt: skip


def bench_frame(result: dict):
    """A pandas.DataFrame with one row per timed reading of a page.

    A row has the phases, `ttft` and `e2e` in seconds, `tpot` in seconds per token, and the figures of its
    page. A page that was not timed has one row without times.
    """
    import pandas as pd

    rows = []
    for page in result["pages"]:
        about = {key: page.get(key) for key in PAGE}
        for number, run in enumerate(page["runs"]):
            times = {key: value for key, value in run.items() if isinstance(value, float)}
            later = tpot(run["e2e"], run["ttft"], page["new_tokens"])
            rows.append({**about, "repeat": number, **times, "tpot": later})
        if not page["runs"]:
            rows.append(about)
    return pd.DataFrame(rows)
