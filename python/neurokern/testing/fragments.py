"""A model of the operands of mma.sync: codes of elements, fragments of each lane, metadata of a sparse A."""

from __future__ import annotations

import numpy as np
import torch

from .wgmma import TORCH

LANE = np.arange(32)
BITS = {"f16": 16, "bf16": 16, "tf32": 32, "e4m3": 8, "e5m2": 8, "s8": 8, "u8": 8, "s4": 4, "u4": 4, "b1": 1}
RANGES = {"s8": (-128, 128), "u8": (0, 256), "s4": (-8, 8), "u4": (0, 16), "b1": (0, 2)}


def draw(
    kind: str, shape: tuple[int, ...], generator: np.random.Generator, whole: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Random elements: their codes, and what they stand for in double precision. `whole`: -2 to 2, whose sums no order
    of addition rounds."""
    if kind in RANGES:
        values = generator.integers(*RANGES[kind], shape)
        return values.astype(np.int64) & (2 ** BITS[kind] - 1), values.astype(np.float64)
    x = generator.integers(-2, 3, shape).astype(float) if whole else generator.standard_normal(shape)
    x = torch.from_numpy(x).to(TORCH[kind])
    view = {8: torch.uint8, 16: torch.int16, 32: torch.int32}[BITS[kind]]
    codes = x.view(view).numpy().astype(np.int64) & (2 ** BITS[kind] - 1)
    if kind == "tf32":  # without the low 13 bits
        x = (x.view(torch.int32) & ~0x1FFF).view(torch.float32)
    return codes, x.double().numpy()


def words(codes: np.ndarray, bits: int) -> np.ndarray:
    """[..., 32 / bits] elements to one word each, the first in its lowest bits."""
    shifts = np.arange(codes.shape[-1]) * bits
    return (codes << shifts).sum(-1).astype(np.uint32)


def left(codes: np.ndarray, bits: int) -> np.ndarray:
    """Registers [lane, i] of an A of 16 or 8 rows."""
    rows, k = codes.shape
    per, halves = 32 // bits, rows // 8
    i, e = np.arange(halves * k // (4 * per))[None, :, None], np.arange(per)[None, None, :]
    row = LANE[:, None, None] // 4 + 8 * (i % halves) + 0 * e
    return words(codes[row, 4 * per * (i // halves) + per * (LANE[:, None, None] % 4) + e], bits)


def right(codes: np.ndarray, bits: int) -> np.ndarray:
    """Registers [lane, i] of a B of k x 8, by rows of k."""
    per = 32 // bits
    i, e = np.arange(codes.shape[1] // (4 * per))[None, :, None], np.arange(per)[None, None, :]
    return words(
        codes[LANE[:, None, None] // 4 + 0 * i + 0 * e, 4 * per * i + per * (LANE[:, None, None] % 4) + e], bits
    )


def total_places(rows: int, pairs: bool) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of [lane, register] or, of pairs, [lane, register, half]."""
    row, column = LANE[:, None] // 4, LANE[:, None] % 4 * 2
    if pairs:
        i, e = np.arange(rows // 8)[None, :, None], np.arange(2)[None, None, :]
        return row[..., None] + 8 * i + 0 * e, column[..., None] + e + 0 * i
    i = np.arange(rows // 4)[None, :]
    return row + 8 * (i // 2), column + i % 2


def sparse(
    kind: str, k: int, generator: np.random.Generator, whole: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes of 16 x k/2 elements, the 16 x k matrix that they stand for, and the four bits of each chunk."""
    codes, values = draw(kind, (16, k // 2), generator, whole)
    full = np.zeros((16, k))
    if kind == "tf32":
        second = generator.integers(0, 2, (16, k // 2))
        np.put_along_axis(full.reshape(16, k // 2, 2), second[..., None], values[..., None], -1)
        return codes, full, np.where(second == 1, 0b1110, 0b0100)
    unit = 2 if BITS[kind] == 4 else 1
    chunks = k // (4 * unit)
    pairs = np.array([(a, b) for b in range(4) for a in range(b)])[generator.integers(0, 6, (16, chunks))]
    view = full.reshape(16, chunks, 4, unit)
    for which in range(2):
        part = values.reshape(16, chunks, 2, unit)[:, :, which]
        np.put_along_axis(view, pairs[:, :, which, None, None] * np.ones(unit, int), part[:, :, None], 2)
    return codes, full, pairs[..., 0] | pairs[..., 1] << 2


def metadata(nibbles: np.ndarray, bits: int, selector: int) -> np.ndarray:
    """A word for each lane; lanes that the selector leaves out hold what is not valid."""
    chunks = nibbles.shape[1]
    out = np.zeros(32, np.uint32)
    for lane in LANE:
        row, quarter = lane // 4, lane % 4
        if bits >= 16:  # four chunks of each of two rows
            first = 4 * (quarter - selector * chunks // 4)
            if 0 <= first < chunks:
                both = np.concatenate([nibbles[row, first : first + 4], nibbles[row + 8, first : first + 4]])
                out[lane] = words(both, 4)
        else:  # eight chunks of one row: odd lanes have the lower half
            first = 8 * (quarter // 2 - selector * chunks // 8)
            if 0 <= first < chunks:
                out[lane] = words(nibbles[row + 8 * (quarter % 2), first : first + 8], 4)
    return out
