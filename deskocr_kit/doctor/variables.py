"""The environment variables that matter on an NPU, by exact name, each with the shape of its values.

No list of secret names is complete, so this is a list of what is known. A report contains these variables
only. A bundle, which is meant to be sent to others, contains a value only if it has the shape stated here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

NUMBER = r"-?\d{1,7}(?:\.\d{1,6})?"
SWITCH = r"(?i:[0-9]|true|false|on|off|yes|no|enable|disable)"
LIST = r"\d{1,4}(?:[,-]\d{1,4}){0,64}"
PATH = "path"  # folders, which `words.clean_path` reduces to known names
PRESENT = "present"  # only whether it is set

_ALLOCATOR = (
    r"(?:expandable_segments:(?:True|False)|page_size:1g|(?:max_split_size_mb|base_addr_aligned_kb"
    r"|segment_size_mb|roundup_power2_divisions|garbage_collection_threshold):[\d.]{1,8}"
    r"|multi_stream_lazy_reclaim:(?:True|False))"
)

#: {name: shape}. A shape is a regular expression for the whole value, PATH or PRESENT.
SHAPES = {
    **dict.fromkeys(
        (
            "ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME", "ASCEND_OPP_PATH", "ASCEND_AICPU_PATH",
            "ASCEND_RUNTIME_PATH", "ASCEND_COMPILER_PATH", "ASCEND_CUSTOM_OPP_PATH", "ASCEND_DRIVER_PATH",
            "ASCEND_CACHE_PATH", "ASCEND_WORK_PATH", "ASCEND_PROCESS_LOG_PATH", "ASCEND_NNAE_PATH",
            "ATB_HOME_PATH", "TOOLCHAIN_HOME", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "VIRTUAL_ENV",
            "CONDA_PREFIX", "ACL_OP_COMPILER_CACHE_DIR", "DESKOCR_MODEL", "DESKOCR_PLAN",
        ),
        PATH,
    ),
    **dict.fromkeys(
        ("ASCEND_RT_VISIBLE_DEVICES", "ASCEND_VISIBLE_DEVICES", "ASCEND_DEVICE_ID", "CUDA_VISIBLE_DEVICES"),
        LIST,
    ),
    **dict.fromkeys(
        (
            "ASCEND_LAUNCH_BLOCKING", "ASCEND_GLOBAL_LOG_LEVEL", "ASCEND_GLOBAL_EVENT_ENABLE",
            "ASCEND_SLOG_PRINT_TO_STDOUT", "ASCEND_HOST_LOG_FILE_NUM",
            "ASCEND_LOG_DEVICE_FLUSH_TIMEOUT", "TORCH_DEVICE_BACKEND_AUTOLOAD",
            "TORCH_NPU_FALLBACK_CPU_DISABLE", "TORCH_NPU_COMPACT_ERROR_OUTPUT",
            "TORCH_NPU_DISABLED_WARNING", "TORCH_HCCL_ZERO_COPY", "TASK_QUEUE_ENABLE",
            "COMBINED_ENABLE", "PER_STREAM_QUEUE", "MULTI_STREAM_MEMORY_REUSE", "INF_NAN_MODE_ENABLE",
            "INF_NAN_MODE_FORCE_DISABLE", "ACL_OP_INIT_MODE", "ACL_DEVICE_SYNC_TIMEOUT",
            "ACL_STREAM_TIMEOUT", "HCCL_ASYNC_ERROR_HANDLING", "HCCL_CONNECT_TIMEOUT",
            "HCCL_EXEC_TIMEOUT", "HCCL_EVENT_TIMEOUT", "HCCL_BUFFSIZE", "HCCL_INTRA_PCIE_ENABLE",
            "HCCL_INTRA_ROCE_ENABLE", "HCCL_ENTRY_LOG_ENABLE", "HCCL_WHITELIST_DISABLE",
            "HCCL_DESYNC_DEBUG", "HCCL_RDMA_TIMEOUT", "HCCL_RDMA_RETRY_CNT", "HCCL_RDMA_TC",
            "HCCL_RDMA_SL", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "STREAMS_PER_DEVICE",
            "TORCH_NPU_USE_COMPATIBLE_IMPL", "DESKOCR_STRICT", "DESKOCR_DEBUG",
            "DESKOCR_SIMULATOR_FORCE",
        ),
        rf"{SWITCH}|{NUMBER}",
    ),
    "ACL_OP_COMPILER_CACHE_MODE": r"enable|disable|force",
    "HCCL_DETERMINISTIC": rf"{SWITCH}|strict",
    "HCCL_OP_EXPANSION_MODE": r"AI_CPU|AIV|HOST|HOST_TS",
    "CPU_AFFINITY_CONF": r"[0-2]|mode[:=][0-2](?:,npu\d{1,3}:\d{1,4}(?:-\d{1,4})?){0,64}",
    "PYTORCH_NPU_ALLOC_CONF": rf"{_ALLOCATOR}(?:,{_ALLOCATOR}){{0,8}}",
    "DESKOCR_DEVICE": r"(?:auto|cpu|cuda|mps|npu|npu-sim)(?::\d{1,3})?",
    **dict.fromkeys(
        (
            "http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY",
            "ALL_PROXY", "NO_PROXY",
        ),
        PRESENT,
    ),
}  # fmt: skip


def fits(name: str, value: str) -> bool:
    """Whether a value has the shape that its variable's values have; for a path, see `words.clean_path`."""
    shape = SHAPES[name]
    return shape in (PATH, PRESENT) or bool(re.fullmatch(shape, value[:4000]))


def settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables whose value is a number, a switch or a known word, sorted; no folders and no addresses."""
    plain = {name for name, shape in SHAPES.items() if shape not in (PATH, PRESENT)}
    return {name: environ[name] for name in sorted(plain & set(environ)) if fits(name, environ[name])}
