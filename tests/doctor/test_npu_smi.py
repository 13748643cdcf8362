"""Every available layout of npu-smi, and tables that were cut, quoted or squeezed."""

from __future__ import annotations

import random
import re

import pytest

from deskocr_kit.doctor.npu_smi import parse
from tests.helpers.paths import ASCEND


def sample(name: str) -> str:
    return (ASCEND / name).read_text(encoding="utf-8")


def figures(text: str) -> list[tuple]:
    return [
        (c.id, c.chip, c.name, c.health, c.hbm_used_mib, c.hbm_total_mib, len(c.processes))
        for c in parse(text).chips
    ]


TABLES = {
    "910B3x8_v25.2.0_one_process.txt": (
        "25.2.0",
        [
            (i, 0, "910B3", "OK", used, 65536, int(i == 4))
            for i, used in enumerate([3407, 3398, 3400, 3400, 21784, 3400, 3401, 3413])
        ],
    ),
    "910B4_with_64G_v25.0.rc1.1.txt": ("25.0.rc1.1", [(0, 0, "910B4", "OK", 6154, 65536, 0)]),
    "910B4x1_npu5_v25.5.2_idle.txt": ("25.5.2", [(5, 0, "910B4", "OK", 2922, 32768, 0)]),
    "OLD_910_named_910B_x8_v25.5.2_idle.txt": (
        "25.5.2",
        [(i, 0, "910B", "OK", 0, 32768, 0) for i in range(8)],
    ),
    "gpustack_ai-server_atlas-800-training-server_model-9010_version-6.0.RC1.txt": (
        "22.0.3.1",
        [(i, 0, "910A", "OK", 0, 32768, 0) for i in range(8)],
    ),
    "A3_two_dies_named_and_nameless.txt": (
        "25.3.rc1",
        [
            (0, 0, "Ascend910", "OK", 3150, 65536, 0),
            (0, 1, "Ascend910", "OK", 2886, 65536, 0),
            (6, 0, "Ascend910", "Warning", 3125, 65536, 1),
            (6, 1, "Ascend910", "OK", 60125, 65536, 2),
        ],
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_with_hbm(name):
    version, rows = TABLES[name]
    assert parse(sample(f"npu-smi/{name}")).version == version
    assert figures(sample(f"npu-smi/{name}")) == rows


def test_process_with_and_without_a_name():
    busy = parse(sample("npu-smi/910B3x8_v25.2.0_one_process.txt")).chips[4].processes
    assert [(p.pid, p.name, p.memory_mib) for p in busy] == [(1601114, "python", 18429)]
    chips = parse(sample("npu-smi/A3_two_dies_named_and_nameless.txt")).chips
    assert [(p.pid, p.name, p.memory_mib) for p in chips[2].processes] == [(1756550, None, 116)]
    assert [(p.pid, p.name, p.memory_mib) for p in chips[3].processes] == [
        (1756551, "VLLMEngineCor", 57000),
        (1756552, "python3.11", 120),
    ]


def test_a3_has_physical_ids_and_no_power_on_the_second_die():
    chips = parse(sample("npu-smi/A3_two_dies_named_and_nameless.txt")).chips
    assert [c.phy_id for c in chips] == [0, 1, 12, 13]
    assert [c.power_w for c in chips] == [166.6, None, 160.0, None]
    assert [c.temp_c for c in chips] == [37, 36, 38, 36]


def test_a_310_has_ddr_only_and_four_chips():
    chips = parse(
        sample("npu-smi/gpustack_ai-server_atlas-800-inference-server_model-3000_version-1.0.11-1.0.15.txt")
    ).chips
    assert [(c.id, c.chip, c.logic_id, c.memory_used_mib, c.memory_total_mib) for c in chips] == [
        (6, 0, 3, 2703, 8192),
        (6, 1, 4, 2867, 8192),
        (6, 2, 5, 2867, 8192),
        (6, 3, 6, 2867, 8192),
    ]
    assert {c.hbm_total_mib for c in chips} == {None}
    assert chips[0].free_mib == 8192 - 2703


def test_missing_fields_stay_none():
    p3, b4 = parse(sample("npu-smi/310P_310B_missing_fields.txt")).chips
    assert (p3.power_w, p3.temp_c, p3.memory_used_mib, p3.memory_total_mib) == (None, 41, 1693, 21527)
    assert (b4.id, b4.health, b4.bus_id, b4.aicore_percent, b4.memory_used_mib) == (
        32,
        "Alarm",
        None,
        None,
        1218,
    )


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t.replace("\n", "\r\n"),
        lambda t: "\n".join("> " + line for line in t.splitlines()),
        lambda t: "```text\n$ npu-smi info\n" + t + "\n```",
        lambda t: re.sub(r" {2,}", "  ", t),  # blanks squeezed by a web page
        lambda t: re.sub(r"\s*/\s*", "/", t),
        lambda t: "\n".join("\x1b[32m" + line + "\x1b[0m" for line in t.splitlines()),
        lambda t: "\n".join(line for line in t.splitlines() if not line.startswith("+")),
        lambda t: "\n".join("    " + line for line in t.splitlines()),
    ],
    ids=["crlf", "quoted", "fenced", "squeezed", "slashes", "ansi", "rulers", "indented"],
)
def test_spoilt_tables_read_the_same(name, spoil):
    assert figures(spoil(sample(f"npu-smi/{name}"))) == TABLES[name][1]


def test_rows_without_their_header():
    text = sample("npu-smi/910B4x1_npu5_v25.5.2_idle.txt").splitlines()
    assert figures("\n".join(text[6:8])) == [(5, 0, "910B4", "OK", 2922, 32768, 0)]


def test_a_blank_column_keeps_its_place():
    text = sample("npu-smi/910B4x1_npu5_v25.5.2_idle.txt")
    chip = parse(
        text.replace(
            "| 0           0    / 0          2922 / 32768         |",
            "|" + " " * 13 + "0    / 0          2922 / 32768         |",
        )
    ).chips[0]
    assert (chip.aicore_percent, chip.hbm_used_mib, chip.hbm_total_mib) == (None, 2922, 32768)
    chip = parse(text.replace("2922 / 32768", "NA   / 32768")).chips[0]
    assert (chip.hbm_used_mib, chip.hbm_total_mib, chip.free_mib) == (None, 32768, None)


def test_a_row_without_id_or_name_is_kept():
    text = sample("npu-smi/910B4x1_npu5_v25.5.2_idle.txt")
    assert figures(text.replace("| 5     910B4 ", "| 5           "))[0][:3] == (5, 0, None)
    assert figures(text.replace("| 5     910B4 ", "|       910B4 "))[0][:3] == (None, 0, "910B4")


def test_pages_of_t():
    usages = parse(sample("npu-smi-t/info_-t_usages_25.5.1.txt")).chips[0]
    assert (usages.id, usages.hbm_total_mib, usages.hbm_used_mib) == (0, 65536, round(65536 * 0.05))
    board = parse(sample("npu-smi-t/info_-t_board_25.5.1.txt"))
    assert (board.chips[0].name, board.chips[0].bus_id) == ("IT21HMDC_Bin5", "0000:C1:00.0")
    assert board.details[0]["Software Version"] == "25.5.1"
    memory = parse(sample("npu-smi-t/info_-t_memory_910B_64G.txt")).chips[0]
    assert (memory.id, memory.hbm_total_mib) == (None, 65536)
    power = parse(sample("npu-smi-t/info_-t_power_25.5.1.txt")).chips[0]
    assert power.power_w == 103.5
    temp = parse(sample("npu-smi-t/info_-t_temp_25.5.1.txt"))
    assert [(c.id, c.temp_c) for c in temp.chips] == [(0, 39.0)]  # the MCU is not a chip
    process = parse(sample("npu-smi-t/info_-t_proc-mem.txt")).chips[0].processes[0]
    assert (process.pid, process.name, process.memory_mib) == (207795, "VLLMEngineCor", 55436)
    listed = parse(sample("npu-smi-t/info_-l_8cards.txt"))
    assert (listed.card_count, [c.id for c in listed.chips]) == (8, list(range(8)))


def test_chip_id_closes_or_opens_a_block():
    closing = """
        NPU ID                         : 3
        Chip Count                     : 2

        HBM Capacity(MB)               : 65536
        HBM Usage Rate(%)              : 4
        Chip ID                        : 0

        HBM Capacity(MB)               : 65536
        HBM Usage Rate(%)              : 78
        Chip ID                        : 1
    """
    opening = """
        NPU ID                         : 3
        Chip Count                     : 2

        Chip ID                        : 0
        HBM Capacity(MB)               : 65536
        HBM Usage Rate(%)              : 4

        Chip ID                        : 1
        HBM Capacity(MB)               : 65536
        HBM Usage Rate(%)              : 78
    """
    want = [(3, 0, round(65536 * 0.04)), (3, 1, round(65536 * 0.78))]
    for text in (closing, opening, closing.replace("\n\n", "\n"), opening.replace("\n\n", "\n")):
        assert [(c.id, c.chip, c.hbm_used_mib) for c in parse(text).chips] == want


def test_mapping_skips_the_mcu_and_reads_the_new_column():
    old = parse(
        sample(
            "npu-smi/gpustack_ai-server_atlas-800-inference-server_model-3000_version-1.0.11-1.0.15_mapping.txt"
        )
    )
    assert [(c.id, c.chip, c.logic_id, c.name) for c in old.chips] == [(6, i, i, "MiniD") for i in range(4)]
    new = parse(
        "NPU ID  Chip ID  Chip Logic ID  Chip Phy-ID  Chip Name\n"
        "0  0  0  4  Ascend910\n0  1  1  5  Ascend910\n0  2  -  -  Mcu\n"
    )
    assert [(c.id, c.chip, c.logic_id, c.phy_id) for c in new.chips] == [(0, 0, 0, 4), (0, 1, 1, 5)]
    named = parse(
        sample("npu-smi/gpustack_ai-server_atlas-800-training-server_model-9010_version-6.0.RC1_mapping.txt")
    )
    assert [(c.id, c.logic_id, c.name) for c in named.chips] == [(i, i, "Ascend 910A") for i in range(8)]


def test_table_and_pages_in_one_file_become_one_set_of_chips():
    text = "\n".join(
        sample(f"npu-smi-t/{name}") for name in ("info_-t_usages_25.5.1.txt", "info_-t_power_25.5.1.txt")
    )
    both = parse(sample("npu-smi/910B3x8_v25.2.0_one_process.txt") + text)
    assert len(both.chips) == 8
    assert both.chips[0].hbm_used_mib == 3407  # from the table: the page rounds to whole per cent
    assert both.chips[0].power_w == 94.8


def test_a_failing_npu_smi_is_a_complaint():
    text = "DrvMngGetConsoleLogLevel failed. (g_conLogLevel=3)\ndcmi module initialize failed. ret is -8005\n"
    assert parse(text).chips == []
    assert "ret is -8005" in parse(text).complaint
    assert parse("").complaint is None


@pytest.mark.parametrize(
    "junk", ["", "|", "|||", "| a | b |", "+---+\n|", "NPU ID :", "\x00\xff|1|", "Chip ID : 7"]
)
def test_junk_never_raises(junk):
    for chip in parse(junk).chips:
        assert chip.hbm_total_mib is None


def test_mutilated_printouts_never_raise():
    """A thousand damaged copies (seeded): the parser may find less, but it must not fail."""
    dice = random.Random(1)
    texts = [path.read_text(encoding="utf-8") for path in sorted(ASCEND.glob("npu-smi*/*"))]
    chips = 0
    for _ in range(1000):
        text = list(dice.choice(texts))
        for _ in range(dice.randint(1, 30)):
            at = dice.randrange(len(text) + 1)
            text[at : at + dice.randint(0, 40)] = dice.choice(["|", "\n", " / ", "NA", "\x00", "9", ":", ""])
        chips += len(parse("".join(text)).chips)
    assert chips > 1000


def test_a_table_printed_twice_is_one_table():
    once = sample("npu-smi/910B3x8_v25.2.0_one_process.txt")
    later = once.replace("21784/ 65536", "60000/ 65536")
    chips = parse(once + "\n" + later).chips
    assert len(chips) == 8 and chips[4].hbm_used_mib == 60000 and len(chips[4].processes) == 1
    cut = parse(once + "\n" + later[: later.index("| 6     910B3")]).chips
    assert sorted(c.id for c in cut) == list(range(8))


def test_drawn_bars_are_bars():
    text = sample("npu-smi/A3_two_dies_named_and_nameless.txt")
    assert parse(text.replace("|", "│")) == parse(text)


@pytest.mark.parametrize(
    "words",
    [
        "npu-smi: error while loading shared libraries: libc_sec.so: cannot open shared object file",
        "bash: npu-smi: command not found",
        "npu-smi info: No device",
        "",
    ],
)
def test_an_error_line_is_no_card(words):
    found = parse(words)
    assert found.chips == [] and (found.complaint or "") in (words, "")


def test_a_prompt_after_the_table_and_a_busy_310p():
    text = """\
| npu-smi 24.1.0                                   Version: 24.1.0                                       |
| NPU     Name                  | Health          | Power(W)     Temp(C)           Hugepages-Usage(page) |
| Chip    Device                | Bus-Id          | AICore(%)    Memory-Usage(MB)                        |
| 1       310P3                 | OK              | NA           45                0     / 0             |
| 0       0                     | 0000:01:00.0    | 0            1580 / 44280                            |
| 1       310P3                 | OK              | NA           42                0     / 0             |
| 1       1                     | 0000:01:00.0    | 0            1366 / 43693                            |
| 5       310P3                 | Alarm           | NA           48                17    / 17            |
| 0       2                     | 0000:81:00.0    | 100          20000/ 44280                            |
| NPU     Chip                  | Process id      | Process name             | Process memory(MB)        |
| No running processes found in NPU 1                                                                    |
| 5       0                     | 4123456         | mindie_llm_back          | 18321                     |
\x1b[?2004hroot@host:~# """
    chips = parse(text).chips
    assert [(c.id, c.chip, c.logic_id, c.memory_used_mib, c.memory_total_mib) for c in chips] == [
        (1, 0, 0, 1580, 44280),
        (1, 1, 1, 1366, 43693),
        (5, 0, 2, 20000, 44280),
    ]
    assert [len(c.processes) for c in chips] == [0, 0, 1] and chips[2].processes[0].memory_mib == 18321


def test_wide_addresses_controllers_and_more_columns():
    """A PCIe domain of eight digits, the MCU listed as a chip, a process table with one more column."""
    text = """\
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip  Phy-ID              | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
| 0     Ascend910           | OK            | 161.7       36                0    / 0             |
| 0     0                   | 00010000:9D:00.0| 0         0    / 0          3148 / 65536         |
| 0     Mcu                 | OK            | 30          43                                     |
| 2     -                   | NA            | -           -                                      |
| NPU     Chip              | Process id    | Process name             | Container  | Process memory(MB) |
| 0       0                 | 12            | python                   | 0a1b2c     | 4000               |
"""
    (chip,) = parse(text).chips
    assert (chip.bus_id, chip.phy_id, chip.hbm_used_mib) == ("00010000:9D:00.0", 0, 3148)
    assert [(p.pid, p.name, p.memory_mib) for p in chip.processes] == [(12, "python", 4000)]
