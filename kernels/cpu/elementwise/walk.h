// The loop over a run, and how a family of kernels fills its table.
//
// A run is walked several vectors at a time (see simd/wide.h).
#pragma once

#include "../../math.h"
#include "../simd/exact.h"
#include "../simd/params.h"
#include "entries.h"
#include "storage.h"

namespace nk::NK_ISA {

// Vectors that go side by side: as many as keep the processor busy without running out of registers.
#if defined(NK_ISA_scalar)
inline constexpr int kWidth = 1;
#elif defined(NK_ISA_avx2)
inline constexpr int kWidth = 2;
#else
inline constexpr int kWidth = 4;
#endif
// For f64, whose polynomials are twice as long, and for the passes that compute several functions.
inline constexpr int kNarrow = kWidth > 1 ? 2 : 1;
template <class T>
inline constexpr int width = sizeof(T) == 8 ? kNarrow : kWidth;

// Asks for the lines of a step `ahead` bytes on, one in two or one in four of them: the machine's own prefetching
// brings their neighbours, but it stops at the end of a page, and there every page begins anew with misses of cache and
// TLB.
template <int Bytes, int Ins, class T>
NK_HD void fetch(const T* p, int64_t ahead) {
    constexpr int apart = Ins == 1 ? 256 : 128;
    if constexpr (Bytes >= 128)
        for (int b = 0; b < Bytes; b += apart)
            __builtin_prefetch(reinterpret_cast<const char*>(p) + ahead + b, 0, 2);  // into L2
}

// Whether an output overwrites an input.
template <int Ins, int Outs>
NK_HD bool in_place(const cpu::Run& r) {
    for (int i = 0; i < Outs; ++i)
        for (int j = 0; j < Ins; ++j)
            if (r.out[i] == r.in[j]) return true;
    return false;
}

// Computes outputs from inputs, Width vectors of each at a time: body(in[Ins], out[Outs]). What is left after the last
// whole step is computed as a step that overlaps it; where that can't be (in place, or the body does more than its
// outputs tell: not Pure) or there is none, it goes through zero-filled blocks. The same loop is run once more for it,
// so that the body is compiled once. Exact: outputs are numbers of T already.
template <class T, int Ins, int Outs, int Width, bool Pure = true, bool Exact = false, class Body>
NK_HD void walk(const cpu::Run& r, Body body) {
    using V = wide<number<T, Exact>, Width>;
    constexpr int step = V::lanes;
    static_assert(step <= cpu::kRepeat, "a repeated value must fill a step");
    const T* in[Ins];
    int64_t advance[Ins], ahead[Ins];
    T* out[Outs];
    for (int j = 0; j < Ins; ++j) {
        in[j] = static_cast<const T*>(r.in[j]);
        advance[j] = r.step[j] * step;
        ahead[j] = r.step[j] * r.ahead;
    }
    for (int j = 0; j < Outs; ++j) out[j] = static_cast<T*>(r.out[j]);

    alignas(64) T tail_in[Ins][step], tail_out[Outs][step];
    T* rest_out[Outs] = {};
    unsigned rest = 0;  // bytes of the tail
    int64_t left = r.n;
    bool past = r.past;
    for (;;) {
        for (; left >= step; left -= step) {
            V v[Ins], y[Outs];
            for (int j = 0; j < Ins; ++j) {
                fetch<step * sizeof(T), Ins>(in[j], ahead[j]);
                load_wide(in[j], v[j]);
            }
            body(v, y);
            for (int j = 0; j < Outs; ++j) put_wide<Exact>(out[j], y[j], past);
            for (int j = 0; j < Ins; ++j) in[j] += advance[j];
            for (int j = 0; j < Outs; ++j) out[j] += step;
        }
        if (left == 0) break;
        if (Pure && r.n >= step && rest == 0 && !in_place<Ins, Outs>(r)) {
            const int64_t back = step - left;
            for (int j = 0; j < Ins; ++j) in[j] -= back * r.step[j];
            for (int j = 0; j < Outs; ++j) out[j] -= back;
            left = step;
            past = false;
            continue;
        }
        rest = static_cast<unsigned>(left) * sizeof(T);
        for (int j = 0; j < Ins; ++j) {
            memset(tail_in[j], 0, sizeof tail_in[j]);
            memcpy(tail_in[j], in[j], rest);
            in[j] = tail_in[j];
        }
        for (int j = 0; j < Outs; ++j) {
            rest_out[j] = out[j];
            out[j] = tail_out[j];
        }
        left = step;
        past = false;
    }
    if (rest != 0)
        for (int j = 0; j < Outs; ++j) memcpy(rest_out[j], tail_out[j], rest);
}

// A kernel for a 16-bit type made of the one for float, through blocks in the first-level cache: for the rarer
// combinations, which are not worth code of their own.
template <class T, int Ins, int Outs, cpu::RunKernel Float>
void through_float(const cpu::Run& r) {
    constexpr int block = 256, L = lanes_for<T>;
    alignas(64) float in[Ins][block], out[Outs][block];
    cpu::Run part = r;
    part.ahead = 0;
    part.past = false;
    for (int j = 0; j < Ins; ++j) part.in[j] = in[j], part.step[j] = 1;
    for (int j = 0; j < Outs; ++j) part.out[j] = out[j];
    for (int64_t i = 0; i < r.n; i += block) {
        part.n = min64(block, r.n - i);
        for (int j = 0; j < Ins; ++j) {
            const T* from = static_cast<const T*>(r.in[j]) + i * r.step[j];
            for (int k = 0; k < part.n; k += L, from += L * r.step[j])
                store(in[j] + k, load(from, static_cast<int>(min64(L, part.n - k))));
        }
        Float(part);
        for (int j = 0; j < Outs; ++j) {
            T* to = static_cast<T*>(r.out[j]) + i;
            for (int k = 0; k < part.n; k += L) store(to + k, load(out[j] + k), static_cast<int>(min64(L, part.n - k)));
        }
    }
}

// Fills row[dtype] with Kernel<Op, T>::run, or the way through float where Kernel says so.
template <template <class, class> class Kernel, class Op>
void fill_row(cpu::RunKernel (&row)[kFloatTypes]) {
    using K = Kernel<Op, float>;
    row[0] = K::run;
    row[1] = Kernel<Op, double>::run;
    if constexpr (Kernel<Op, f16>::direct) {
        row[2] = Kernel<Op, f16>::run;
        row[3] = Kernel<Op, bf16>::run;
    } else {
        row[2] = through_float<f16, K::ins, K::outs, K::run>;
        row[3] = through_float<bf16, K::ins, K::outs, K::run>;
    }
}

}  // namespace nk::NK_ISA
