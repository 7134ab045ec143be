"""The GPU's clocks, power and temperature while it is measured, read from nvidia-smi; nothing is set."""

from __future__ import annotations

import subprocess
import threading
from typing import Any

import torch

FIELDS = {"clocks.sm": "sm_mhz", "clocks.mem": "memory_mhz", "power.draw": "watts", "temperature.gpu": "celsius"}
THROTTLE = "clocks_event_reasons.active"  # older drivers call it clocks_throttle_reasons.active
EVERY = 500  # milliseconds


def gpu_id() -> str | None:
    """torch's current GPU, as nvidia-smi knows it."""
    uuid = getattr(torch.cuda.get_device_properties(torch.cuda.current_device()), "uuid", None)
    return f"GPU-{uuid}" if uuid else None


def command(gpu: str | None, *more: str) -> list[str]:
    """That prints a line of the fields, of one GPU or of the first."""
    return ["nvidia-smi", f"--id={gpu or 0}", f"--query-gpu={','.join(FIELDS)},{THROTTLE}",
            "--format=csv,noheader,nounits", *more]  # fmt: skip


def parsed(line: str) -> dict[str, Any] | None:
    """A line of nvidia-smi's; what it does not know is None."""
    words = [w.strip() for w in line.split(",")]
    if len(words) != len(FIELDS) + 1:
        return None
    found: dict[str, Any] = {}
    for name, word in zip(FIELDS.values(), words, strict=False):
        try:
            found[name] = float(word)
        except ValueError:
            found[name] = None
    return found | {"throttled_by": words[-1]}


def read(gpu: str | None = None) -> dict[str, Any] | None:
    """How they are now; None where nvidia-smi says nothing."""
    try:
        done = subprocess.run(command(gpu), capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parsed(done.stdout.partition("\n")[0])


class Watch:
    """Reads them twice a second from here on, in a process of its own.

    Attributes:
        before: the reading that it began with, or None.
        latest: the last reading, or None.
    """

    def __init__(self, gpu: str | None = None) -> None:
        self.latest = read(gpu)
        if self.latest is None and gpu is not None:
            gpu, self.latest = None, read()
        self.before = self.latest
        self._process: subprocess.Popen[str] | None = None
        if self.latest is None:
            return
        try:
            self._process = subprocess.Popen(
                command(gpu, f"--loop-ms={EVERY}"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        except OSError:
            return
        threading.Thread(target=self._follow, args=(self._process,), daemon=True).start()

    def _follow(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.latest = parsed(line) or self.latest

    def close(self) -> None:
        """No more readings."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
