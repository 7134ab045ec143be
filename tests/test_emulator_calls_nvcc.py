"""Calls on the emulator as nvcc writes them: pointers to functions, virtual functions, recursion, printf, assert."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from neurokern.backends import emulation
from neurokern.testing.ptx import DeviceError, emulator

pytestmark = [
    pytest.mark.skipif(emulation.missing() is not None, reason=str(emulation.missing())),
    pytest.mark.usefixtures("snippets"),
]


SOURCE = r"""
#include <cassert>
#include <cstdio>
#include <new>

typedef int (*Map)(int);
__device__ int square(int x) { return x * x; }  __device__ int negated(int x) { return -x; }
__device__ int tripled(int x) { return 3 * x; }
__device__ Map maps[3] = {square, negated, tripled};
__constant__ Map fixed_maps[2] = {tripled, square};
__device__ int data[8] = {1, 2, 3, 4, 5, 6, 7, 8};
__device__ int* pointers[2] = {data + 2, data + 5};
struct __attribute__((packed)) Mixed { char c; int* p; Map f; };
__device__ Mixed mixed = {3, data + 1, tripled};

extern "C" __global__ void pointed(int* out, const int* in, const int* which) {
    const int t = threadIdx.x;
    out[t] = maps[which[t]](in[t]) + fixed_maps[which[t] & 1](in[t]) + *pointers[t & 1] + *mixed.p + mixed.f(mixed.c);
}

struct Shape {
    int scale;
    __device__ Shape(int s) : scale(s) {}
    __device__ virtual float area() const = 0;
    __device__ virtual float twice() const { return 2 * area(); }
};
struct Square : Shape {
    float a;
    __device__ Square(float x) : Shape(1), a(x) {}
    __device__ float area() const override { return scale * a * a; }
};
struct Disc : Shape {
    float r;
    __device__ Disc(float x) : Shape(2), r(x) {}
    __device__ float area() const override { return scale * 3 * r * r; }
    __device__ float twice() const override { return -area(); }
};

extern "C" __global__ void shapes(float* out, const float* in) {
    __shared__ alignas(16) char room[64][32];
    const int t = threadIdx.x;
    Shape* s = t % 3 == 0 ? (Shape*)new (room[t]) Square(in[t]) : (Shape*)new (room[t]) Disc(in[t]);
    out[t] = s->twice() + s->area();
}

__device__ void quicksort(int* a, int low, int high) {
    if (low >= high) return;
    const int pivot = a[(low + high) / 2];
    int i = low, j = high;
    while (i <= j) {
        while (a[i] < pivot) ++i;
        while (a[j] > pivot) --j;
        if (i > j) break;
        const int x = a[i];
        a[i++] = a[j], a[j--] = x;
    }
    quicksort(a, low, j), quicksort(a, i, high);
}
extern "C" __global__ void sorted(int* a, long each) { quicksort(a + threadIdx.x * each, 0, each - 1); }

// Over a heap of `nodes`: at each leaf the path from the root, which every call copies into an array of its own.
__device__ int walk(int node, int nodes, const int* above, int depth) {
    int path[8];
    for (int k = 0; k < depth; ++k) path[k] = above[k];
    path[depth] = node;
    int sum = 0;
    for (int child = 2 * node + 1; child <= 2 * node + 2; ++child)
        if (child < nodes) sum += walk(child, nodes, path, depth + 1);
    if (2 * node + 1 >= nodes)
        for (int k = 0; k <= depth; ++k) sum += path[k] * (k + 1);
    return sum + path[depth];
}
extern "C" __global__ void walked(int* out) { out[threadIdx.x] = walk(0, threadIdx.x + 1, nullptr, 0); }

extern "C" __global__ void lines(int* out, double x) {
    const int t = threadIdx.x;
    out[t] = printf("%d|%5.2f %-6d|%+ld %c %llu %*d %.3s%% %e %hu\n", t, x * t, t, -5000000000l * t, 'a' + t,
                    1ull << 63, 5, t, "abcdef", x, (unsigned short)-t);
    if (t == 1) printf("plain\n");
}

struct Big { double a; int b; char c; long d[2]; };
struct Base {
    int tag = 7;
    __device__ virtual ~Base() {}
    __device__ virtual Big make(Big x, int k) = 0;
};
struct Other {
    int more = 3;
    __device__ virtual ~Other() {}
    __device__ virtual int id() const { return 5; }
};
struct Both : Base, Other {
    __device__ Big make(Big x, int k) override { x.a *= 2, x.b += k, x.d[1] -= k; return x; }
    __device__ int id() const override { return 6 + tag + more; }
};
struct Leaf : Base {
    __device__ Big make(Big x, int k) override { x.c = 'z'; return k > 0 ? make(x, k - 1) : x; }
};
template <int N>
__device__ int times(int x) { return N * x; }
__device__ int applied(Map f, int x, int n) { return n == 0 ? x : applied(f, f(x), n - 1); }

extern "C" __global__ void objects(long* out, const int* in) {
    const int t = threadIdx.x;
    Base* base = t & 1 ? (Base*)new Both : (Base*)new Leaf;
    const Other* other = t & 1 ? (Both*)base : nullptr;
    Big (Base::*member)(Big, int) = &Base::make;
    const Big y = (base->*member)(Big{1.5 * t, t, 'a', {t, 2 * t}}, in[t]);
    const Map f = t % 3 == 0 ? times<3> : t % 3 == 1 ? times<2> : Map([](int v) { return v - 1; });
    out[t] = (long)y.a * 1000000 + y.b * 1000 + y.c + y.d[1] + applied(f, t, in[t]) + (other ? other->id() : 0);
    delete base;
}

struct Node { int value; Node* next; };
__device__ Node* kept[32];

// A list of its own for each thread; the next launch adds it up and frees it.
extern "C" __global__ void listed(long n) {
    Node* list = nullptr;
    for (int k = 0; k < n + threadIdx.x; ++k) list = new Node{k, list};
    kept[threadIdx.x] = list;
}
extern "C" __global__ void summed(int* out, long most) {
    int sum = 0;
    for (Node* n = kept[threadIdx.x]; n != nullptr;) {
        Node* next = n->next;
        sum += n->value;
        delete n;
        n = next;
    }
    out[threadIdx.x] = sum + (malloc(most) == nullptr ? 1000000 : 0);
}
extern "C" __global__ void misused(long how) {
    int* a = (int*)malloc(24);
    if (how == 0) a[6] = 1;
    if (how > 0) free(a);
    if (how == 1) a[2] = 1;
    if (how == 2) free(a);
}

extern "C" __global__ void asserts(int* a) { assert(a[threadIdx.x] < 3); }
"""


@pytest.fixture(scope="module")
def compiled(nvcc: Callable[[str, str], str]) -> str:
    return nvcc(SOURCE, "sm_90")


class TestNvcc:
    def test_pointers_to_functions(self, compiled: str, seed: int) -> None:
        rng = np.random.default_rng(seed)
        x, which = (rng.integers(low, high, 64).astype(np.int32) for low, high in ((-1000, 1000), (0, 3)))
        out = np.zeros(64, np.int32)
        emulator().launch(compiled, [out, x, which], name="pointed", block=(64, 1, 1))
        first = np.select([which == 0, which == 1], [x * x, -x], 3 * x)
        second = np.where(which & 1, x * x, 3 * x)
        assert out.tolist() == (first + second + np.where(np.arange(64) & 1, 6, 3) + 2 + 9).tolist()

    def test_virtual_functions(self, compiled: str) -> None:
        x = np.arange(64, dtype=np.float32)
        out = np.zeros(64, np.float32)
        emulator().launch(compiled, [out, x], name="shapes", block=(64, 1, 1))
        assert out.tolist() == np.where(np.arange(64) % 3 == 0, 3 * x * x, 0).tolist()

    def test_objects(self, compiled: str, seed: int) -> None:
        """Structs by value to virtual functions of several bases, pointers to members, to lambdas and templates."""
        k = np.random.default_rng(seed).integers(0, 6, 64).astype(np.int32)
        out = np.zeros(64, np.int64)
        emulator().launch(compiled, [out, k], name="objects", block=(64, 1, 1))

        def want(t: int, n: int) -> int:
            made = (3 * t, t + n, ord("a"), 2 * t - n, 16) if t & 1 else (int(1.5 * t), t, ord("z"), 2 * t, 0)
            through = [t * 3**n, t * 2**n, t - n][t % 3]
            return made[0] * 1000000 + made[1] * 1000 + sum(made[2:]) + through

        assert out.tolist() == [want(t, int(n)) for t, n in enumerate(k)]

    def test_quicksort(self, compiled: str, seed: int) -> None:
        x = np.random.default_rng(seed).integers(-50, 50, (40, 100)).astype(np.int32)
        got = x.copy()
        emulator().launch(compiled, [got, 100], name="sorted", block=(40, 1, 1))
        assert got.tolist() == np.sort(x, 1).tolist()

    def test_a_walk_with_local_arrays(self, compiled: str) -> None:
        def walk(node: int, nodes: int, above: list[int]) -> int:
            path = [*above, node]
            inner = sum(walk(c, nodes, path) for c in (2 * node + 1, 2 * node + 2) if c < nodes)
            return node + (inner if 2 * node + 1 < nodes else sum(p * (k + 1) for k, p in enumerate(path)))

        out = np.zeros(100, np.int32)
        emulator().launch(compiled, [out], name="walked", block=(100, 1, 1))
        assert out.tolist() == [walk(0, n + 1, []) for n in range(100)]

    @pytest.mark.emulator_only("what is printed")
    def test_printf(self, compiled: str, capfd: pytest.CaptureFixture[str]) -> None:
        out = np.zeros(3, np.int32)
        x = np.float64(2.5)
        emulator().launch(compiled, [out, int(x.view(np.int64))], name="lines", block=(3, 1, 1))
        assert out.tolist() == [11] * 3
        want = [
            f"{t}|{x * t:5.2f} {t:<6}|{-5000000000 * t:+} {chr(97 + t)} {2**63} {t:5} abc% {x:e} {-t & 0xFFFF}\n"
            for t in range(3)
        ]
        assert capfd.readouterr().out == "".join([*want, "plain\n"])

    @pytest.mark.emulator_only("errors")
    def test_assert(self, compiled: str, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(DeviceError, match=r"asserts, .*thread \(4, 0, 0\): Assertion `a\[threadIdx.x\] < 3`"):
            emulator().launch(compiled, [np.array([0, 1, 2, 2, 3, 4], np.int32)], name="asserts", block=(6, 1, 1))
        said = capfd.readouterr().err.splitlines()
        assert [line.split(": void asserts(int *): ")[1] for line in said] == [
            f"block: [0,0,0], thread: [{t},0,0] Assertion `a[threadIdx.x] < 3` failed." for t in (4, 5)
        ]

    @pytest.mark.parametrize("threads", [1, 32])
    def test_memory_from_malloc(self, compiled: str, threads: int) -> None:
        """It outlives the launch. More than there is gives null."""
        out = np.zeros(threads, np.int32)
        emulator().launch(compiled, [10], name="listed", block=(threads, 1, 1))
        emulator().launch(compiled, [out, 1 << 40], name="summed", block=(threads, 1, 1))
        assert out.tolist() == [(10 + t) * (9 + t) // 2 + 1000000 for t in range(threads)]

    @pytest.mark.emulator_only("errors")
    @pytest.mark.parametrize(
        ("how", "what"),
        [
            (0, "writes 4 bytes of global memory at address 0x.*: 0 bytes behind 24 bytes that malloc gave"),
            (1, "writes 4 bytes of global memory at address 0x.*: in 24 bytes that were freed"),
            (2, "frees address 0x.*, which malloc did not give: in 24 bytes that were freed"),
        ],
    )
    def test_memory_misused(self, compiled: str, how: int, what: str) -> None:
        with pytest.raises(DeviceError, match=what):
            emulator().launch(compiled, [how], name="misused", block=(1, 1, 1))


DIVISION = """
typedef unsigned __int128 Wide;
extern "C" __global__ void divided(unsigned long long* out, const unsigned long long* in) {
    const int t = threadIdx.x;
    const Wide a = (Wide)in[4 * t] << 64 | in[4 * t + 1], b = (Wide)in[4 * t + 2] << 64 | in[4 * t + 3];
    const Wide q = a / b, r = a % b;
    out[4 * t] = q >> 64, out[4 * t + 1] = q, out[4 * t + 2] = r >> 64, out[4 * t + 3] = r;
}
"""


def test_division_of_128_bits(nvcc: Callable[[str, str], str], seed: int) -> None:
    """It takes the carry of a difference for the flag of a sum."""
    generator = np.random.default_rng(seed)
    halves, shifts = generator.integers(0, 2**64, (64, 2), dtype=np.uint64), generator.integers(0, 120, 64)
    numbers = [(int(x) << 64 | int(y)) >> int(s) for (x, y), s in zip(halves, shifts, strict=True)]
    words = np.array([w for n in numbers for w in (max(n, 1) >> 64, max(n, 1) % 2**64)], np.uint64)
    out = np.zeros(128, np.uint64)
    emulator().launch(nvcc(DIVISION, "sm_80"), [out, words], name="divided")
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    want = [divmod(max(a, 1), max(b, 1)) for a, b in pairs]
    assert [(int(a) << 64 | int(b), int(c) << 64 | int(d)) for a, b, c, d in out.reshape(32, 4)] == want
