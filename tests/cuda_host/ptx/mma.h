// The fragments of mma.sync as the PTX ISA lists them (g = lane / 4, t = lane % 4):
//   m16n8k16  a[i]: row g + 8 (i % 2), k = 2t + 8 (i / 2) + {0, 1}    b[i]: k = 2t + 8 i + {0, 1}, column g
//   m16n8k8   a[i]: row g + 8 (i % 2), k = t + 4 (i / 2)              b[i]: k = t + 4 i, column g   (tf32)
//   both      c[i]: row g + 8 (i / 2), column 2t + i % 2
//   m8n8k4    a: row g, k = t    b: k = t, column g    c[i]: row g, column 2t + i   (f64)
#pragma once
#include "../../dtype.h"
#include "cvt.h"
#include "runtime.h"
namespace nk::ptx {
struct MmaLane {
    float* d;
    const uint32_t* a;
    uint32_t b[2];
};
template <DType T, int K>
void mma_work(void** lanes) {
    static float a[16][K], b[K][8];
    auto number = [](uint32_t bits, int e) {
        if constexpr (T == DType::f32)
            return __uint_as_float(bits & 0xffffe000);
        else if constexpr (T == DType::bf16)
            return __uint_as_float(bits >> 16 * e << 16);
        else
            return f16_to_f32(static_cast<uint16_t>(bits >> 16 * e));
    };
    constexpr int per = K == 16 ? 2 : 1;
    for (int l = 0; l < 32; ++l) {
        const MmaLane& x = *static_cast<MmaLane*>(lanes[l]);
        const int g = l / 4, t = l % 4;
        for (int e = 0; e < per; ++e) {
            for (int i = 0; i < 4; ++i) a[g + 8 * (i % 2)][per * t + K / 2 * (i / 2) + e] = number(x.a[i], e);
            for (int i = 0; i < 2; ++i) b[per * t + K / 2 * i + e][g] = number(x.b[i], e);
        }
    }
    for (int l = 0; l < 32; ++l)
        for (int i = 0; i < 4; ++i) {
            const int row = l / 4 + 8 * (i / 2), column = l % 4 * 2 + i % 2;
            float& d = static_cast<MmaLane*>(lanes[l])->d[i];
            double sum = d;
            for (int k = 0; k < K; ++k) sum += static_cast<double>(a[row][k]) * b[k][column];
            d = static_cast<float>(sum);
        }
}
template <DType T>
void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    MmaLane mine{d, a, {b0, b1}};
    host::warp_collective(&mine, mma_work<T, 16>);
}
inline void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    MmaLane mine{d, a, {b0, b1}};
    host::warp_collective(&mine, mma_work<DType::f32, 8>);
}
struct MmaLaneF64 {
    double* d;
    double a, b;
};
inline void mma_f64_work(void** lanes) {
    auto lane = [&](int g, int t) { return static_cast<MmaLaneF64*>(lanes[g * 4 + t]); };
    double d[8][8];
    for (int r = 0; r < 8; ++r)
        for (int c = 0; c < 8; ++c) {
            d[r][c] = lane(r, c / 2)->d[c % 2];
            for (int k = 0; k < 4; ++k) d[r][c] = std::fma(lane(r, k)->a, lane(c, k)->b, d[r][c]);
        }
    for (int r = 0; r < 8; ++r)
        for (int c = 0; c < 8; ++c) lane(r, c / 2)->d[c % 2] = d[r][c];
}
inline void mma_m8n8k4_f64(double (&d)[2], double a, double b) {
    MmaLaneF64 mine{d, a, b};
    host::warp_collective(&mine, mma_f64_work);
}
}  // namespace nk::ptx
