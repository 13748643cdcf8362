"""The network: vision towers, projector, decoder, and the merge of image and text embeddings.

Shape letters: see slots.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn as nn
from torch import Tensor

from .config import DeepseekOCRConfig
from .decoder import DecoderLayer, KVCache, RMSNorm, rotary_tables
from .fast import DEFAULTS
from .fast.step import Step
from .joined import run_layers_and_norm
from .pages import Page, Sample, by_sample
from .sam import SamEncoder
from .slots import Slots
from .vision import tower

AT_ONCE = 1024 * 1024  # pixels per batch on a CPU; the activations of more pixels do not fit into its cache
AT_ONCE_DEVICE = 32 * AT_ONCE  # on a device: a page and its 32 tiles; many pages take several batches


@dataclass
class Output:
    """logits (b, n, vocab) fp32."""

    logits: Tensor


class Projector(nn.Module):
    def __init__(self, config: DeepseekOCRConfig):
        super().__init__()
        self.layers = nn.Linear(config.projector_config["input_dim"], config.projector_config["n_embed"])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class DeepseekOCRModel(nn.Module):
    """The network without the output matrix. The attributes have the official names."""

    def __init__(self, config: DeepseekOCRConfig, slots: Slots):
        super().__init__()
        decoder = config.decoder
        self.tower = tower(config)
        self.sam_model = SamEncoder(config.sam, slots)
        self.add_module(self.tower.name, self.tower.build(config.encoder, slots))
        self.projector = Projector(config)
        newline = torch.empty(decoder.width)
        self.image_newline = nn.Parameter(newline) if self.tower.newline else None
        self.view_seperator = nn.Parameter(torch.empty(decoder.width))  # official spelling
        self.embed_tokens = nn.Embedding(decoder.vocab, decoder.width)
        self.layers = nn.ModuleList(DecoderLayer(decoder, i, slots) for i in range(decoder.layers))
        self.norm = RMSNorm(decoder.width, decoder.eps, slots)
        self.slots = slots

    def encode_views(self, pixels: Tensor) -> Tensor:
        """Square views (b, 3, S, S) -> features (b, tokens, d), in the dtype of the weights.

        tokens: (S/64)**2, or the number of learned queries. A batch has at most AT_ONCE_DEVICE pixels on a
        device, where large operators are efficient, and at most AT_ONCE on a CPU.
        """
        pixels = pixels.to(self.view_seperator.dtype)
        at_once = AT_ONCE if pixels.device.type == "cpu" else AT_ONCE_DEVICE
        limit = max(1, at_once // pixels[0, 0].numel())
        if len(pixels) > limit:
            return torch.cat([self.encode_views(part) for part in pixels.split(limit)])
        return self.projector(self.tower.features(getattr(self, self.tower.name), self.sam_model(pixels)))


class Network(nn.Module):
    """The network without loading, saving and generation, which are in modeling_deepseekocr.py.

    `decoder_config`: the sizes of the decoder in this process; parallel/ splits one over several processes.
    """

    step: type[Step] = Step  # how a token is decoded, see fast/step.py

    def __init__(self, config: DeepseekOCRConfig, plan: Mapping[str, Callable] | None = None):
        super().__init__()
        self.config, self.decoder_config = config, config.decoder
        self.slots = replace(Slots(), **{**DEFAULTS, **(plan or {})})
        self.model = DeepseekOCRModel(config, self.slots)
        self.lm_head = nn.Linear(config.decoder.width, config.decoder.vocab, bias=False)

    def use_plan(self, plan: Mapping[str, Callable]) -> None:
        """Replace implementations by slot name. Raises ValueError if a name is not a slot."""
        for name, function in plan.items():
            if not hasattr(self.slots, name):
                raise ValueError(f"no slot named {name!r}; there are {', '.join(vars(self.slots))}")
            setattr(self.slots, name, function)

    @property
    def device(self) -> torch.device:
        return self.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.lm_head.weight.dtype

    def encode_views(self, pixels: Tensor) -> Tensor:
        """Square views of one size (b, 3, S, S) -> features (b, tokens, d)."""
        return self.model.encode_views(pixels)

    def encode_pages(self, images: Sequence[Page], spatial_crop: Sequence[Sequence[int]]) -> list[Tensor]:
        """The token vectors of each page, [(tokens, d), …]: local rows, global rows, separator.

        Views of the same size go through the towers in one batch, across pages.
        """
        views: list[tuple[int, bool, Tensor]] = []  # (page, whether it is the global view, pixels)
        for i, ((crops, view), (w, h)) in enumerate(zip(images, spatial_crop, strict=True)):
            views.append((i, True, view))
            if w * h > 1:
                if len(crops) != w * h:
                    raise ValueError(f"page {i}: {len(crops)} tiles for a grid of {w}x{h}")
                views.append((i, False, crops))
        features: dict[tuple[int, bool], Tensor] = {}
        for size in dict.fromkeys(tuple(pixels.shape[-2:]) for _, _, pixels in views):
            if size[0] != size[1] or size[0] % 64:
                raise ValueError(f"views must be squares of a multiple of 64 pixels, got {size[0]}x{size[1]}")
            same = [view for view in views if tuple(view[2].shape[-2:]) == size]
            pixels = torch.cat([pixels for _, _, pixels in same]).to(self.dtype).to(self.device)
            encoded = self.encode_views(pixels).split([len(pixels) for _, _, pixels in same])
            for (page, is_global, _), rows in zip(same, encoded, strict=True):
                features[page, is_global] = rows
        m = self.model
        return [
            m.tower.layout(
                features[i, True][0], features.get((i, False)), (w, h), m.image_newline, m.view_seperator
            )
            for i, (w, h) in enumerate(spatial_crop)
        ]

    def embed(
        self,
        input_ids: Tensor,
        images: Sequence[Sample] | None = None,
        images_seq_mask: Tensor | None = None,
        images_spatial_crop: Tensor | Sequence | None = None,
    ) -> Tensor:
        """Token embeddings (b, n, d) with the vectors of the pages at the masked positions, page after page.

        A sample is text-only if its row of `images_seq_mask` is all False; its pixels are then ignored. (The
        original decides this for the whole batch: it tests whether the pixels of sample 0 sum to zero.)

        Raises:
            ValueError: the number of masked positions of a sample differs from the number of its vectors.
        """
        embeds = self.model.embed_tokens(input_ids.to(self.device))
        if images is None or images_seq_mask is None:
            return embeds
        mask = images_seq_mask.cpu()  # counting on the host needs no synchronisation
        counts = mask.sum(1).tolist()
        if len(images) != len(counts):
            raise ValueError(f"{len(images)} pages for a batch of {len(counts)}")
        samples = by_sample(images, images_spatial_crop)
        with_page = [i for i, count in enumerate(counts) if count]
        if not with_page:
            return embeds
        owners = [i for i in with_page for _ in samples[i]]
        shown = [page for i in with_page for page in samples[i]]
        pages = self.encode_pages([page for page, _ in shown], [grid for _, grid in shown])
        for i in with_page:
            lengths = [len(page) for page, owner in zip(pages, owners, strict=True) if owner == i]
            if sum(lengths) != counts[i]:
                what = "the page gives" if len(lengths) == 1 else f"its {len(lengths)} pages give"
                raise ValueError(
                    f"sample {i}: {counts[i]} image placeholders in the text, but {what} "
                    f"{sum(lengths)} vectors. Were ids and pixels prepared with the same mode?"
                )
        return self.model.slots.place_images(embeds, mask, torch.cat(pages).to(embeds.dtype))

    def decode_embeds(
        self,
        embeds: Tensor,
        positions: Tensor,
        mask: Tensor | None,
        causal: bool,
        cache: KVCache | None = None,
        last: int = 0,
    ) -> Tensor:
        """Embeddings (b, n, d) -> logits (b, n or last, vocab) fp32.

        mask: bool (b, 1, n, keys), True: attend. causal: use the causal mask instead.
        """
        c, positions = self.config.decoder, positions.to(self.device)
        if cache is None:
            rope = rotary_tables(positions, c.head_dim, c.rope_theta, embeds.dtype)
        else:
            rope = cache.rotary(positions)
        layers, norm, kept = self.model.layers, self.last_norm, slice(-last, None)
        kinds, how = (DecoderLayer, RMSNorm), (rope, mask, causal, cache)
        x = run_layers_and_norm(embeds, layers, kinds, self.slots, norm, kept, how)
        if cache is not None:
            cache.advance(embeds.shape[1])
        return self.head(x)

    @property
    def last_norm(self) -> nn.Module:
        """The norm behind the last layer; nothing where that layer is in another process."""
        return self.model.norm

    def head(self, x: Tensor) -> Tensor:
        """What `last_norm` gives (b, n, d) -> logits (b, n, vocab) fp32."""
        return self.lm_head(x).float()

    def forward(
        self,
        input_ids: Tensor,
        images: Sequence[Sample] | None = None,
        images_seq_mask: Tensor | None = None,
        images_spatial_crop: Tensor | Sequence | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        logits_to_keep: int = 0,
    ) -> Output:
        """One pass without a cache.

        Args:
            input_ids: (b, n) int64; batches are padded on the left.
            images: per sample (crops, global view), see `Page`, or a list of several; None for text only.
            images_seq_mask: (b, n) bool, True at the placeholders of the page.
            images_spatial_crop: (b, 2) [tiles wide, tiles high]; (1, 1) means no tiles. With several pages
                per sample: a list per sample of one such pair per page.
            attention_mask: (b, n), 0 on padding. The logits of padding are meaningless.
            position_ids: (b, n); by default counted over the attended tokens.
            logits_to_keep: number of last positions that get logits; 0: all.
        """
        embeds = self.embed(input_ids, images, images_seq_mask, images_spatial_crop)
        mask, positions = padding(attention_mask, input_ids.shape, self.device)
        if position_ids is not None:
            positions = position_ids
        return Output(self.decode_embeds(embeds, positions, mask, mask is None, last=logits_to_keep))


def padding(
    attention_mask: Tensor | None, shape: tuple[int, ...], device: torch.device
) -> tuple[Tensor | None, Tensor]:
    """Mask (b, 1, n, n) bool, or None if plain causal is enough; and positions (b, n) that skip padding.

    A row of padding attends to itself, so that its values stay finite; they are not used.
    """
    b, n = shape
    if attention_mask is None or bool(attention_mask.all()):
        return None, torch.arange(n, device=device).expand(b, n)
    attended = attention_mask.bool().to(device)
    positions = attended.long().cumsum(1) - 1
    positions = positions.masked_fill(~attended, 1)  # 1 on padding, as in transformers' generate
    causal = torch.ones(n, n, dtype=torch.bool, device=device).tril()
    itself = torch.eye(n, dtype=torch.bool, device=device)
    return ((causal & attended[:, None, :]) | itself)[:, None], positions
