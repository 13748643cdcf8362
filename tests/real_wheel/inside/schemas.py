"""Every operator schema that the wheel registers under "npu", one per line, sorted."""

from __future__ import annotations

import torch

for schema in sorted(str(each) for each in torch._C._jit_get_all_schemas() if each.name.startswith("npu::")):
    print(schema)
