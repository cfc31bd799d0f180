"""Turns one benchmark's figures into the tables of `docs/performance.md`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BEGIN, END = "<!-- figures: begin (written by make bench) -->", "<!-- figures: end -->"


def _table(title: str, columns: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["", f"**{title}**", "", _row(columns), _row(["---"] * len(columns))]
    return lines + [_row(row) for row in rows]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _spread(pair: list[float], digits: int) -> str:
    return f"{pair[0]:.{digits}f}–{pair[1]:.{digits}f}"


def _costs(title: str, rows: dict[str, Any]) -> list[str]:
    columns = ["path", "CPU-µs a request", "spread", "parts", "requests/s", "errors"]
    cells = [
        [
            name,
            f"{row['cpu_us']:.1f}",
            _spread(row["cpu_us_spread"], 1),
            " + ".join(f"{part} {value:.1f}" for part, value in row["parts_us"].items()),
            f"{row['requests_per_s']:.0f}",
            str(row["errors"]),
        ]
        for name, row in rows.items()
    ]
    return _table(title, columns, cells)


def _bulk(way: str, rows: dict[str, Any]) -> list[str]:
    columns = ["path", "MB/s", "spread", "of nginx as proxy", "CPU-ms a MB", "parts"]
    proxy = rows["nginx as proxy"][way]
    cells = []
    for name, ways in rows.items():
        row = ways[way]
        parts = " + ".join(f"{part} {value:.2f}" for part, value in row["parts_ms_mb"].items())
        rate = f"{row['mb_s']:.0f}"
        ratio = f"{row['mb_s'] / proxy['mb_s']:.2f}"
        cells.append([name, rate, _spread(row["spread"], 0), ratio, f"{row['cpu_ms_mb']:.2f}", parts])
    return _table(f"Bulk {way} through one tunnel", columns, cells)


def _latency(rows: dict[str, Any]) -> list[str]:
    keys = ["p50_us", "p99_us", "added_p50_us", "added_p99_us"]
    cells = [[name, *(f"{row[key]:.0f}" for key in keys)] for name, row in rows.items()]
    return _table("Latency at low load", ["path", "p50 µs", "p99 µs", "added p50", "added p99"], cells)


def tables(result: dict[str, Any]) -> str:
    """Markdown tables of all figures; CPU in µs a request, rates in MB/s (10⁶), memory in KiB."""
    box, settings, idle = result["machine"], result["settings"], result["idle"]
    lines = [
        f"Commit `{result['commit']}`, {result['taken']}. {box['cpu']}, {box['cores']} cores, "
        f"{box['memory_gib']} GiB, Linux {box['kernel']}, CPython {box['python']}; load before the run "
        f"{box['load_before']:.2f}. "
        f"{settings['rounds']} interleaved rounds of {settings['seconds']} s; medians.",
    ]
    lines += _costs("1 KB, 32 connections", result["small_c32"])
    lines += _costs("1 KB, 1 connection", result["small_c1"])
    lines += _costs("64 KB, 8 connections", result["large_c8"])
    lines += _bulk("down", result["bulk"])
    lines += _bulk("up", result["bulk"])
    lines += _latency(result["latency"])
    lines += [
        "",
        f"**Memory**: server {idle['server_kib_before'] / 1024:.0f} MiB RSS before, "
        f"{idle['kib_per_tunnel']:.1f} KiB more for each of {idle['tunnels']} idle tunnels (TLS); "
        f"agent {idle['agent_rss_kib'] / 1024:.1f} MiB RSS after the load above.",
    ]
    return "\n".join(lines)


def write(page: Path, result: dict[str, Any]) -> None:
    """Replaces what stands between the page's two marks."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{tables(result)}\n\n{END}{after}")
