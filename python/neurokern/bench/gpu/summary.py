"""What all stages of `make gpu` found, from the files that they left: one look tells what to do next."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..console import say, table
from ..report import geometric_mean, name_of

Line = dict[str, Any]
WORST = 12  # cases and failures that are listed
METRICS = {
    "Duration": "duration", "Compute (SM) Throughput": "SM", "Memory Throughput": "memory",
    "DRAM Throughput": "DRAM", "Achieved Occupancy": "occupancy", "Registers Per Thread": "registers",
}  # fmt: skip


def lines(path: Path) -> list[Line]:
    """Of a file of JSON lines; none where there is no file, nor those that were cut."""
    found = []
    for text in path.read_text(errors="replace").splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(text))
    return found


def outcomes(journal: Iterable[Line]) -> dict[str, Line]:
    """The last word on each test; one that began and never ended was cut."""
    last: dict[str, Line] = {}
    for line in journal:
        if "test" in line:
            last[line["test"]] = line
    return {k: v | {"outcome": "cut"} if v["outcome"] == "begun" else v for k, v in last.items()}


def show_stages(run: Sequence[Line]) -> int:
    """How each ended; the number that failed."""
    stages = [line for line in run if "stage" in line]
    table("stages", ("stage", ">seconds", "ended"), [(s["stage"], s["seconds"], s["ended"]) for s in stages],
          ["" if s["exit"] == 0 else "red" for s in stages])  # fmt: skip
    return sum(s["exit"] != 0 for s in stages)


def show_tests(journal: Sequence[Line]) -> None:
    """Each family's outcomes, and what failed."""
    tests = outcomes(journal)
    if not tests:
        return
    counts: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for line in tests.values():
        counts[line["backend"], line["family"]][line["outcome"]] += 1
    names = ("passed", "failed", "died", "cut", "skipped", "error")
    rows = [(b, f, *(found.get(n, 0) or "" for n in names)) for (b, f), found in sorted(counts.items())]
    bad = ["red" if any(row[3:6]) or row[7] else "" for row in rows]
    table("tests", ("backend", "family", *(f">{n}" for n in names)), rows, bad)
    causes: dict[str, list[str]] = defaultdict(list)
    for line in tests.values():
        if line["outcome"] in ("failed", "died", "error"):
            said = _cause(line)
            causes[re.sub(r"[\d.]+(e[-+]?\d+)?", "#", said)].append(f"{line['test'].rpartition('/')[2]}: {said[:160]}")
    for some in sorted(causes.values(), key=len, reverse=True)[:WORST]:
        say(f"  {len(some)} x {some[0]}", "red")
    if len(causes) > WORST:
        say(f"  and {len(causes) - WORST} other causes")


def _cause(line: Line) -> str:
    """Why a test failed, in one line."""
    words = [w.strip() for w in line.get("message", "").splitlines() if w.strip()]
    said = next((w for w in words if w.startswith(("E ", "output", "gradient"))), words[-1] if words else "")
    return f"{line['outcome']}: {said}" + (f" (the GPU was lost: {line['lost']})" if line.get("lost") else "")


def _clocks(records: Sequence[Line]) -> str:
    read = [r["clocks"] for r in records if r.get("clocks")]
    parts = []
    for key, unit in (("sm_mhz", "MHz"), ("watts", "W"), ("celsius", "C")):
        values = [c[key] for c in read if c.get(key) is not None]
        if values:
            parts.append(f"{min(values):.0f}-{statistics.median(values):.0f}-{max(values):.0f} {unit}")
    return ", ".join(parts)


def _wrong(record: Line) -> bool:
    """Whether the result of a case is far worse than torch's, or not finite."""
    ours, theirs = record.get("error_ulps", 0.0), record.get("torch_error_ulps")
    return ours is None or (theirs is not None and ours > 4 * theirs + 4)


def show_bench(records: Sequence[Line]) -> None:
    """Each suite's mean ratio to torch, its clocks, and the worst cases."""
    suites: dict[str, list[Line]] = defaultdict(list)
    for r in records:
        suites[r["suite"]].append(r)
    rows = []
    for name, some in suites.items():
        done = [r for r in some if not r["failed"]]
        worst = min(done, key=lambda r: r["ratio"], default=None)
        by_events = sum(r.get("timer") == "events" for r in done)
        shares = [r["share"] for r in done]
        rows.append((name, len(done), len(some) - len(done) or "",
                     f"{geometric_mean(r['ratio'] for r in done):.2f}" if done else "",
                     f"{geometric_mean(r['torch_eager_us'] / r['ours_eager_us'] for r in done):.2f}" if done else "",
                     f"{worst['ratio']:.2f}" if worst else "", name_of(worst) if worst else "",
                     f"{100 * statistics.median(shares):.0f} %" if shares else "", by_events or "",
                     _clocks(some)))  # fmt: skip
    if not rows:
        return
    table("times faster than torch", ("suite", ">cases", ">failed", ">mean", ">called", ">worst", "worst case",
          ">of the peak", ">no graph", "clocks: least-median-most"), rows)  # fmt: skip
    done = sorted((r for r in records if not r["failed"]), key=lambda r: r["ratio"])
    for r in done[:WORST]:
        say(f"  {r['ratio']:.2f} {name_of(r)}: {r['ours_us']:.1f} us, torch {r['torch_us']:.1f}, "
            f"{100 * r['share']:.0f} % of {r['share_of']}, {r['kernel']}")  # fmt: skip
    for r in [r for r in done if _wrong(r)][:WORST]:
        say(f"  wrong? {name_of(r)}: {r['error_ulps']} ulps, torch {r['torch_error_ulps']}", "red")
    for r in [r for r in records if r["failed"]][:WORST]:
        say(f"  failed: {name_of(r)}: {r['failed'][:200]}", "red")
    for why in {r["no_graph"]: r for r in records if r.get("no_graph")}.values():
        say(f"  no graph: {name_of(why)}: {why['no_graph']}", "yellow")


def show_twins(snippets: Sequence[Line]) -> None:
    """Where the emulator and the GPU differ."""
    if not snippets:
        return
    counts = {k: sum(s[k] for s in snippets) for k in snippets[0] if isinstance(snippets[0][k], int)}
    say(f"twins on {snippets[0]['device']}: {len(snippets)} tests, " + ", ".join(f"{n} {k}" for k, n in counts.items()))
    differ = [(s["test"], what) for s in snippets for what in s["differences"]]
    for test, what in differ[:WORST]:
        say(f"  differs: {test.rpartition('/')[2]}: {what[:160]}", "red")
    if len(differ) > WORST:
        say(f"  and {len(differ) - WORST} more")


def show_profile(path: Path) -> None:
    """What ncu measured of each kernel."""
    if not path.exists():
        return
    text = [line for line in path.read_text(errors="replace").splitlines() if line.startswith('"')]
    kernels: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for row in csv.DictReader(text):
        if (name := METRICS.get(row.get("Metric Name") or "")) and "Metric Value" in row:
            kernels[row.get("ID", ""), row.get("Kernel Name", "")].setdefault(
                name, f"{row['Metric Value']} {row.get('Metric Unit') or ''}".strip()
            )
    rows = [(kernel, *(found.get(n, "") for n in METRICS.values())) for (_, kernel), found in kernels.items()]
    if rows:
        table("kernels, by ncu", ("kernel", *(f">{n}" for n in METRICS.values())), rows)


def show_environment(run: Sequence[Line]) -> None:
    """The machine, in two lines."""
    for line in run:
        if "environment" not in line:
            continue
        smi, torch = line["nvidia_smi"], line["torch"]
        l2 = torch.get("L2_cache_size")
        say(f"{smi.get('name')}, capability {smi.get('compute_cap')}, driver {smi.get('driver_version')}, L2 "
            f"{f'{int(l2) / 2**20:.0f} MiB' if l2 else 'unknown'}, SM clock {smi.get('clocks.sm')} of at most "
            f"{smi.get('clocks.max.sm')}, {smi.get('power.draw')} of {smi.get('power.limit')}")  # fmt: skip
        say(f"torch {torch.get('version')} for CUDA {torch.get('cuda')}, nvcc {line['nvcc']['version']}, Python "
            f"{line['python']}, {line['cores']} cores, commit {line['commit']}")  # fmt: skip
        if line["rehearsal"]:
            say("a rehearsal: the emulator took the GPU's place, and no time means anything", "yellow")


def show(folder: Path) -> int:
    """Print it all; 1 if a stage failed."""
    run = lines(folder / "gpu-run.jsonl")
    show_environment(run)
    show_tests(lines(folder / "gpu-tests.jsonl"))
    show_bench(lines(folder / "gpu-bench.jsonl"))
    show_profile(folder / "gpu-ncu.csv")
    show_twins(lines(folder / "gpu-snippets.jsonl"))
    return int(show_stages(run) > 0)
