"""Import transformers as in the original's code. Prints one JSON object."""

from __future__ import annotations

import json


def main() -> None:
    from transformers.utils import is_torch_npu_available  # noqa: F401, I001 (this order is tried)
    import transformers
    from transformers import PreTrainedModel  # noqa: F401 (loads torch)

    print(json.dumps({"transformers": transformers.__version__}), flush=True)


if __name__ == "__main__":
    main()
