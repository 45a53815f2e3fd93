"""Medians and ratios as a table, JSON and an SVG chart. A ratio is peer time / netfs time."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

Key = tuple[float, str, str]  # RTT in ms, peer, metric
Samples = dict[Key, list[float]]

GOALS: Final[dict[str, tuple[float | None, float | None]]] = {
    "find -ls, cold": (6, 1.2),
    "grep -r, cold": (25, 2),
    "grep -r, again": (25, 4),
    "cp -a out, cold": (20, 1.5),
    "git status, cold": (8, 1.2),
    "git status, again": (10, 1),
    "tar x in": (4, 1.2),
    "rm -r, cold": (1.2, 1),
    "big read, cold": (12, 1.5),
    "big write + fsync": (2, 1.5),
    "4 KiB sequential writes + fsync": (1, 1),
    "random 4 KiB reads": (1, 1),
    "serial uncached stat": (None, 0.8),
    "small create + write + close": (None, 0.8),
}
"""Metric -> the ratio to sshfs that is aimed at with a 20 ms round trip, and on loopback."""


def goal(metric: str, rtt_ms: float) -> float | None:
    """The ratio aimed at, None where there is none."""
    far, near = GOALS.get(metric, (None, None))
    return far if rtt_ms >= 20 else near if rtt_ms == 0 else None


def medians(samples: Samples) -> dict[Key, float]:
    return {key: statistics.median(values) for key, values in samples.items()}


def shown(value: float | None, metric: str) -> str:
    if value is None:
        return "–"
    if "MB" in metric:
        return f"{value:.0f} MB"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def table(samples: Samples, peers: Iterable[str]) -> str:
    """Lines for people: one block per RTT, one row per metric."""
    middle = medians(samples)
    peers = list(peers)
    others = [peer for peer in peers if peer != "netfs"]
    lines = []
    for rtt in sorted({rtt for rtt, _, _ in samples}):
        lines += ["", f"RTT {rtt:g} ms" if rtt else "loopback"]
        head = f"{'':34}" + "".join(f"{peer:>14}" for peer in peers)
        head += "".join(f"{'vs ' + peer:>12}" for peer in others) + f"{'goal':>9}"
        lines.append(head)
        for metric in dict.fromkeys(metric for at, _, metric in samples if at == rtt):
            row = f"{metric:34}"
            for peer in peers:
                row += f"{shown(middle.get((rtt, peer, metric)), metric):>14}"
            for peer in others:
                ratio = ratio_of(middle, rtt, peer, metric)
                row += f"{f'{ratio:.2f} x' if ratio else '–':>12}"
            wanted = goal(metric, rtt)
            if wanted is not None and others:
                ratio = ratio_of(middle, rtt, others[0], metric)
                mark = "" if ratio is None else " ok" if ratio >= wanted else " NO"
                row += f"{f'{wanted:g} x{mark}':>9}"
            lines.append(row)
    return "\n".join(lines)


def ratio_of(middle: Mapping[Key, float], rtt: float, peer: str, metric: str) -> float | None:
    """How many times faster netfs is than *peer*."""
    ours, theirs = middle.get((rtt, "netfs", metric)), middle.get((rtt, peer, metric))
    return theirs / ours if ours and theirs else None


def write_json(path: Path, samples: Samples, about: Mapping[str, object]) -> None:
    """Everything measured, with what it was measured on."""
    rows = [
        {
            "rtt_ms": rtt,
            "peer": peer,
            "metric": metric,
            "median": statistics.median(values),
            "samples": values,
        }
        for (rtt, peer, metric), values in samples.items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"about": dict(about), "results": rows}, indent=1) + "\n")


def read_json(path: Path) -> Samples:
    """The samples of an earlier run."""
    rows = json.loads(path.read_text())["results"]
    return {(row["rtt_ms"], row["peer"], row["metric"]): row["samples"] for row in rows}


COLOURS: Final = ("#2563eb", "#059669", "#d97706")
CHARTED: Final = (
    "find -ls, cold", "grep -r, cold", "grep -r, again", "git status, cold", "git status, again",
    "git clone into", "cp -a out, cold", "tar x in", "rm -r, cold", "du, cold",
    "python import, cold", "make -j2", "big read, cold", "big write + fsync",
)  # fmt: skip


def chart(samples: Samples, peer: str = "sshfs") -> str:
    """An SVG of horizontal bars, logarithmic: how many times faster than *peer*."""
    middle = medians(samples)
    rtts = sorted({rtt for rtt, _, _ in samples})
    rows = [
        (metric, [(n, ratio_of(middle, rtt, peer, metric)) for n, rtt in enumerate(rtts)])
        for metric in CHARTED
    ]
    rows = [(metric, bars) for metric, bars in rows if any(ratio for _, ratio in bars)]
    largest = max((r for _, bars in rows for _, r in bars if r), default=10)
    top = 10 ** math.ceil(math.log10(max(largest, 10)))
    left, width, bar = 170, 480, 11
    row_height = bar * len(rtts) + 9
    height = 62 + row_height * len(rows) + 24

    def x(ratio: float) -> float:
        low = math.log10(0.3)
        return left + width * (math.log10(max(ratio, 0.3)) - low) / (math.log10(top) - low)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 70}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="12" y="22" font-size="15" font-weight="600" fill="#111827">'
        f"netfs beside {escape(peer)}: times faster (log scale)</text>",
    ]
    for n, rtt in enumerate(rtts):
        at = left + n * 130
        label = f"{rtt:g} ms RTT" if rtt else "loopback"
        out.append(f'<rect x="{at}" y="34" width="10" height="10" fill="{COLOURS[n % 3]}"/>')
        out.append(f'<text x="{at + 15}" y="43" fill="#374151">{label}</text>')
    tick = 1.0
    while tick <= top:
        colour = "#9ca3af" if tick == 1 else "#e5e7eb"
        out.append(
            f'<line x1="{x(tick):.1f}" y1="54" x2="{x(tick):.1f}" y2="{height - 22}" '
            f'stroke="{colour}"/><text x="{x(tick):.1f}" y="{height - 8}" fill="#6b7280" '
            f'text-anchor="middle">{tick:g}×</text>'
        )
        tick *= 10
    for number, (metric, bars) in enumerate(rows):
        y = 60 + number * row_height
        middle_y = y + bar * len(rtts) / 2 + 4
        out.append(
            f'<text x="{left - 8}" y="{middle_y:.1f}" text-anchor="end" fill="#111827">'
            f"{escape(metric)}</text>"
        )
        for n, ratio in bars:
            if ratio is None:
                continue
            at = y + n * bar
            start, end = sorted((x(1), x(ratio)))
            out.append(
                f'<rect x="{start:.1f}" y="{at}" width="{max(end - start, 1):.1f}" '
                f'height="{bar - 1}" fill="{COLOURS[n % 3]}"/>'
                f'<text x="{end + 4:.1f}" y="{at + 9}" font-size="10" fill="#374151">'
                f"{ratio:.1f}</text>"
            )
    return "\n".join([*out, "</svg>", ""])
