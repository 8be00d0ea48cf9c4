"""Pictures of a KV cache: keys and values by channel, whom a scale serves, and what fewer bits cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from qlab.methods import kv_cache

from .style import BLUE, GRAY, GREEN, INK, ORANGE, RED, Figure, new_figure, styled


@styled
def tokens_by_channels(panels: Mapping[str, torch.Tensor]) -> Figure:
    """Magnitudes in a cache as a map, a panel for each tensor: tokens downward, channels to the right.

    Args:
        panels: name to (tokens, channels); a panel's colors reach to its own largest magnitude.
    """
    figure, axes = new_figure(2.2 * len(panels), 2.6, columns=len(panels), squeeze=False)
    words = []
    for axis, (name, panel) in zip(axes[0], panels.items(), strict=True):
        size = panel.abs()
        image = axis.imshow(size.numpy(), cmap="cividis", vmin=0, aspect="auto", interpolation="nearest")
        bar = figure.colorbar(image, ax=axis, location="bottom", shrink=0.9, pad=0.02)
        bar.set_label("magnitude", fontsize=9)
        bar.ax.tick_params(labelsize=8)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("channel of the head")
        by_channel = size.mean(0)
        ratio = float(by_channel.max() / by_channel.median())
        words.append(f"{name}: largest channel {ratio:.1f} times the median channel")
    axes[0][0].set_ylabel("token")
    figure.alt = "Magnitudes in the cache, tokens by channels. " + "; ".join(words) + "."
    return figure


@styled
def scales_by_hand(keys: torch.Tensor, bits: int = 2) -> Figure:
    """A few keys, and what comes back with one scale for each token and with one for each channel.

    Args:
        keys: (tokens, channels), at most about 5 by 5.
        bits: of every code.
    """
    per_token = kv_cache.quantize(keys, bits, torch.float32).dequantize()
    per_channel = kv_cache.quantize(keys.T.contiguous(), bits, torch.float32).dequantize().T
    panels = {"keys": keys, "one scale per token": per_token, "one scale per channel": per_channel}
    limit = float(keys.abs().max())
    figure, axes = new_figure(6.6, 2.0, columns=3)
    rows, columns = keys.shape
    errors = {}
    for axis, (name, panel) in zip(axes, panels.items(), strict=True):
        axis.imshow(panel.numpy(), cmap="PuOr", vmin=-limit, vmax=limit, alpha=0.6, aspect="auto")
        for i in range(rows):
            for j in range(columns):
                text = f"{round(panel[i, j].item(), 2) + 0.0:.2f}".replace("-", "−")
                axis.text(j, i, text, ha="center", va="center", fontsize=8)
        lines = range(rows - 1) if name == "one scale per token" else range(columns - 1)
        for k in lines if panel is not keys else ():
            draw = axis.axhline if name == "one scale per token" else axis.axvline
            draw(k + 0.5, color=INK, linewidth=2)
        errors[name] = float((panel - keys).abs().max())
        axis.set_title(name, fontsize=10)
        axis.set_xticks(range(columns))
        axis.set_yticks(range(rows))
        axis.set_xlabel("channel" if panel is keys else f"channel; largest error {errors[name]:.2f}")
    axes[0].set_ylabel("token")
    figure.alt = (
        f"{rows} keys of {columns} channels and what comes back from {bits} bits: with one scale per token the largest "
        f"error is {errors['one scale per token']:.2f}, with one per channel {errors['one scale per channel']:.2f}."
    )
    return figure


@styled
def drift_by_bits(curves: Mapping[str, Sequence[tuple[float, float, float]]]) -> Figure:
    """What a quantized cache costs against its bits, a line for each way to quantize it.

    Args:
        curves: up to four; name to points (bits for each number, all included; KL in nats; its standard error).
    """
    figure, axis = new_figure(5.4, 2.6)
    looks = ((BLUE, "o-", BLUE, 5), (ORANGE, "s-", ORANGE, 5), (GREEN, "o--", "none", 10), (RED, "s--", "none", 8))
    for (name, points), (color, style, fill, size) in zip(curves.items(), looks, strict=False):
        bits, drift, error = zip(*points, strict=True)
        axis.errorbar(bits, drift, error, fmt=style, color=color, markerfacecolor=fill, markersize=size, label=name)
    axis.set_yscale("log")
    axis.set_xlabel("bits for each number in the cache, scales and minima included")
    axis.set_ylabel("mean KL (nats, logarithmic)")
    axis.grid(axis="y", alpha=0.3)
    axis.legend()
    figure.alt = "Mean KL against bits for each number in the cache. " + "; ".join(
        f"{name}: " + ", ".join(f"{drift:.2g} at {bits:g} bits" for bits, drift, _ in points)
        for name, points in curves.items()
    )
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
    size = (keys * gains).abs().mean(0)
    error = (back - keys * gains).abs().mean(0)
    figure, axis = new_figure(6.2, 2.8)
    axis.bar(range(len(size)), size, color=GRAY, alpha=0.55, label="mean |key|")
    axis.plot(
        range(len(error)), error, ".", color=RED if granularity == "token" else GREEN, label="mean rounding error"
    )
    axis.set_yscale("log")
    axis.set_ylim(1e-3, 200)
    axis.set_xlabel("channel of the head")
    axis.set_ylabel("mean over the tokens")
    axis.set_title(
        f"{bits} bits, one scale per {granularity}, groups of {group_size}: {held:.3g} bits a number;\n"
        f"scores of 64 random queries wrong by {scores:.3g} %",
        fontsize=9,
    )
    axis.legend(loc="upper right", ncols=2)
    axis.margins(x=0.01)
    figure.alt = (
        f"Mean magnitude and mean rounding error of every key channel at {bits} bits with one scale per {granularity}; "
        f"channels {', '.join(map(str, channels))} are {factor:g} times as large. Scores are wrong by {scores:.3g} %."
    )
    return figure
