"""Writes docs/parallel.md with the figures of the official sizes: `python -m docs.parallel`. Needs no weights."""

from __future__ import annotations

from pathlib import Path

from deskocr_kit.display.table import markdown_table
from model import DeepseekOCRConfig
from model.official import CHECKPOINTS
from model.parallel.pipeline import Stages
from model.parallel.split import PARTS, Split

PAGE = Path(__file__).with_name("parallel.md")
CARDS = (1, 2, 4, 8)
HALF = 2  # bytes of a number in fp16 and bf16

HEAD = """# One model on several cards

`python -m docs.parallel` makes this page; its figures are computed from the sizes of the networks.

```bash
deskocr ocr page.png --tensor-parallel 2      # two processes, each with a card and a part of every layer
deskocr ocr scans/ --pipeline-parallel 2      # two processes with the first and the last layers, several pages under way
torchrun --nproc-per-node 2 -m deskocr_kit ocr page.png --tensor-parallel 2   # the same, started by torchrun
```

## When is it worth it?

The weights have 6.7 GB in half precision, so they fit one card of 16 GB and more.

| what you want | take |
|---|---|
| many pages per hour | one process per card: `deskocr batch --devices …`, see [batch.md](batch.md). Cards do not wait for each other, so eight cards read eight times as much. Nothing on this page does better |
| one page sooner | `--tensor-parallel`. A decoded token reads half of the weights on each of two cards. It pays if that saves more time than the sums between the cards cost |
| cards that are too small for the weights | both divide the weights. `--tensor-parallel` also makes a page faster; `--pipeline-parallel` sends much less, so it suits a slow connection |

Neither was run on several cards here: the equality is tested with processes on a CPU, the speed is not measured.

## Tensor parallel

Weights are sliced by hand, as gpt-fast does. `model/parallel/split.py` decides for each tensor:

| part | how | condition |
|---|---|---|
| attention | q, k, v by rows, o by columns: whole heads | the heads divide |
| dense layers | gate, up by rows, down by columns | their inner units divide |
| experts, shared ones too | every expert by its inner dimension: the same work on all ranks for any routing | the inner units of an expert divide |
| vocabulary | embedding and output matrix by rows | the words divide |
| vision tower, projector, router, norms | whole on every rank | |

A part that does not divide is whole on every rank; the command says so. If nothing divides, it stops and names numbers that do.

The vision tower is whole (0.8 GB), and its work is divided by views: each rank encodes some of the tiles, and one gather gives all ranks all features. Slices of the tower would need two sums in each of its 36 layers. A tower on rank 0 only would save memory on the other cards, which nobody can use, and let them wait.

All ranks gather the logits and choose the token by the code of one process. So the n-gram guard, the confidence, the end of a page, and the lowest id of a tie are as in one process, and no rank can differ from another.

Each rank reads its slices from the safetensors files and no other byte. A slice by columns is many small reads; keep the files on a local disk.

Memory of one rank in half precision, in GB, and what the ranks exchange per generated token:

"""

MIDDLE = """
The KV cache is in addition: per position 2 x layers x heads x head size numbers, and a rank has its heads only. One all-reduce sums {width} numbers per token: {bytes} bytes in half precision.

## Pipeline parallel

Stage 0 has the vision tower, the embedding and the first layers, stage 1 the other layers and the output matrix. The border is where the larger stage is smallest, by bytes:

"""

TAIL = """
A token needs both stages one after the other, so a single page is not faster. With several files, or a PDF of several pages, four pages are under way. `--stream` and `--together` read one page at a time. Texts come in the order of the pages.

## Processes

* `deskocr ocr --tensor-parallel 2` starts two new processes (no fork: an NPU cannot be used after one) with the variables of torchrun. Rank r takes card r: write `--device npu`, not `npu:1`. To choose cards, set `ASCEND_RT_VISIBLE_DEVICES` or `CUDA_VISIBLE_DEVICES`.
* HCCL connects NPUs, NCCL CUDA cards, gloo CPUs and simulated NPUs.
* Rank 0 reads the pages and writes the results; the others get the inputs of the model from it.
* An error on one rank ends all, with one message. A rank that does not answer ends them after 600 s; `DESKOCR_RANKS_TIMEOUT` changes that. `torchrun` adds its own report, and treats exit status 1 (a page failed) as an error.
* A bad page, and logits that are not finite, fail that page only. An error of the device ends the command: the ranks are no longer at the same place.
* A plan (`--plan auto`) works on a rank's smaller shapes, except an implementation of `decode_layer` with tensor parallel: it spans a layer and has no place for the sums. The command says so. Recording of the decode step is refused.
* `--weights int8` and `int4` work. Each rank rounds its own slice. With tensor parallel the steps of `o` and `down` are then those of a slice, so logits differ from one process by rounding.
* If attention is whole, each rank computes it, and its router reads the result. Cards of different types could round differently and choose other experts at a near tie: use equal cards.

In Python, with one process per card:

```python
from model.parallel import tensor
from model.parallel.group import Processes

group = Processes(torch.device("npu:0"))  # joins by RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT
model = tensor.load(folder, torch.float16, "npu:0", group=group)
ids = model.generate(**inputs)  # the same call on all ranks
```
"""


def tensor_rows() -> list[list[str]]:
    rows = []
    for name, official in CHECKPOINTS.items():
        for cards in CARDS:
            split = Split.of(DeepseekOCRConfig.official(name), cards)
            whole = [part for part in PARTS if part not in split.divided]
            rows.append(
                [
                    official.title,
                    str(cards),
                    f"{split.parameters() * HALF / 1e9:.2f}",
                    ", ".join(whole) or "-",
                    str(split.sums()),
                    f"{split.sums() * split.summed() * HALF:,}",
                    f"{split.gathered() * HALF:,}",
                    f"{split.cache_values() * HALF:,}",
                ]
            )
    return rows


def stage_rows() -> list[list[str]]:
    rows = []
    for name, official in CHECKPOINTS.items():
        config = DeepseekOCRConfig.official(name)
        stages = Stages.of(config)
        rows.append(
            [
                official.title,
                f"{stages.first} of {config.decoder.layers}",
                *(f"{stages.parameters(stage) * HALF / 1e9:.2f}" for stage in range(2)),
                f"{config.decoder.width * HALF:,}",
            ]
        )
    return rows


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(markdown_table(head, rows)) + "\n"


def page() -> str:
    """The whole of docs/parallel.md."""
    head = "model, cards, GB per rank, also whole, all-reduces per token, bytes summed per token"
    head += ", bytes of logits gathered per token, bytes of KV cache per position and rank"
    width = DeepseekOCRConfig().decoder.width
    return (
        HEAD
        + table(head.split(", "), tensor_rows())
        + MIDDLE.format(width=width, bytes=f"{width * HALF:,}")
        + table(["model", "layers in stage 0", "GB of stage 0", "GB of stage 1", "bytes per token"], stage_rows())
        + TAIL
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
