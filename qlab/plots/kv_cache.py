"""Pictures of a KV cache: its channels, and what fewer bits do to keys with outlier channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from qlab.methods import kv_cache

from .style import GRAY, GREEN, RED, Figure, new_figure, styled


@styled
def tokens_by_channels(panels: Mapping[str, torch.Tensor]) -> Figure:
    """Magnitudes in a cache as a map, a panel for each tensor: tokens downward, channels to the right.

    Args:
        panels: name to (tokens, channels). All share one color scale, which ends at the smallest of their largest
            magnitudes; what lies above has the last color.
    """
    figure, axes = new_figure(2.3 * len(panels), 2.6, columns=len(panels), squeeze=False)
    end = min(float(panel.abs().max()) for panel in panels.values())
    words = []
    for axis, (name, panel) in zip(axes[0], panels.items(), strict=True):
        size = panel.abs()
        image = axis.imshow(size.numpy(), cmap="cividis", vmin=0, vmax=end, aspect="auto", interpolation="nearest")
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("channel of the head")
        by_channel = size.mean(0)
        ratio = float(by_channel.max() / by_channel.median())
        words.append(f"{name}: largest channel {ratio:.1f} times the median channel")
    axes[0][0].set_ylabel("token")
    bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.6, pad=0.02, extend="max")
    bar.set_label(f"magnitude (brightest: {end:.1f} and more)", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    figure.alt = "Magnitudes in the cache, tokens by channels. " + "; ".join(words) + "."
    return figure


@styled
def keys_in_bits(
    keys: torch.Tensor,
    channels: Sequence[int],
    bits: int = 2,
    granularity: str = "token",
    group_size: int = 32,
    factor: float = 8.0,
) -> Figure:
    """Keys with some channels times a factor: the rounding error by channel, and what attention scores lose.

    Args:
        keys: float32 (tokens, head_dim), without the factor; tokens a multiple of group_size.
        channels: those that are multiplied; a query that reads them is divided.
        bits, granularity, group_size: as in `kv_cache.QuantizedStore`.
        factor: 1 or more.
    """
    gains = torch.ones(keys.shape[1])
    gains[list(channels)] = factor
    store = kv_cache.QuantizedStore(bits, granularity, group_size, residual=0)
    store.append((keys * gains)[None, None])
    back = store.read()[0, 0]
    queries = torch.randn(64, keys.shape[1], generator=torch.Generator().manual_seed(0))
    before, after = queries @ keys.T, (queries / gains) @ back.T
    scores = 100 * float((after - before).norm() / before.norm())
    held = 8 * store.nbytes / keys.numel()
    along = {"token": "channels", "channel": "tokens"}[granularity]
    size = (keys * gains).abs().mean(0).tolist()
    error = (back - keys * gains).abs().mean(0).tolist()
    figure, axis = new_figure(6.2, 2.8)
    axis.plot(range(len(size)), size, "s", color=GRAY, markersize=4, label="mean |key|")
    axis.plot(
        range(len(error)), error, ".", color=RED if granularity == "token" else GREEN, label="mean rounding error"
    )
    axis.grid(axis="y", alpha=0.3)
    axis.set_yscale("log")
    axis.set_ylim(1e-3, 200)
    axis.set_xlabel("channel of the head")
    axis.set_ylabel("mean over the tokens")
    axis.set_title(
        f"{bits} bits per {granularity}, groups of {group_size} {along}: {held:.3g} bits a number;\n"
        f"scores of 64 random queries wrong by {scores:.3g} %",
        fontsize=9,
    )
    axis.legend(loc="upper right", ncols=2)
    axis.margins(x=0.01)
    figure.alt = (
        f"Mean magnitude and mean rounding error of every key channel at {bits} bits per {granularity}, groups of "
        f"{group_size} {along}; channels {', '.join(map(str, channels))} are {factor:g} times as large. "
        f"Scores are wrong by {scores:.3g} %."
    )
    return figure
