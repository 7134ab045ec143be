#include "winograd.h"

#include "../product/micro.h"
#include "register.h"

namespace nk::NK_ISA {

#if defined(NK_ISA_avx512)

namespace {

using L = LanesF32;
using V = __m512;
constexpr int W = 16;
constexpr int64_t kRows = cpu::kWinogradRows, kColumns = cpu::kWinogradColumns;

NK_INLINE __mmask16 first_lanes(int64_t n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : __mmask16((1u << n) - 1); }

// B' d B, in place.
NK_INLINE void transform_tile(V (&d)[16]) {
    const auto half = [&](int a, int step) NK_LAMBDA_INLINE {
        const V x0 = d[a], x1 = d[a + step], x2 = d[a + 2 * step], x3 = d[a + 3 * step];
        d[a] = _mm512_sub_ps(x0, x2), d[a + step] = _mm512_add_ps(x1, x2);
        d[a + 2 * step] = _mm512_sub_ps(x2, x1), d[a + 3 * step] = _mm512_sub_ps(x1, x3);
    };
    unroll<4>([&](auto i) NK_LAMBDA_INLINE { half(i, 4); });
    unroll<4>([&](auto i) NK_LAMBDA_INLINE { half(4 * i, 1); });
}

// A' m A: y[0], y[1] of the upper row, y[2], y[3] of the lower.
NK_INLINE void transform_sums(const V (&m)[16], V (&y)[4]) {
    V s[2][4];
    unroll<4>([&](auto i) NK_LAMBDA_INLINE {
        s[0][i] = _mm512_add_ps(_mm512_add_ps(m[i], m[4 + i]), m[8 + i]);
        s[1][i] = _mm512_sub_ps(_mm512_sub_ps(m[4 + i], m[8 + i]), m[12 + i]);
    });
    unroll<2>([&](auto r) NK_LAMBDA_INLINE {
        y[2 * r] = _mm512_add_ps(_mm512_add_ps(s[r][0], s[r][1]), s[r][2]);
        y[2 * r + 1] = _mm512_sub_ps(_mm512_sub_ps(s[r][1], s[r][2]), s[r][3]);
    });
}

// G g G'
NK_INLINE void transform_window(const V (&g)[9], V (&u)[16]) {
    const V half = _mm512_set1_ps(0.5f);
    V t[4][3];
    unroll<3>([&](auto j) NK_LAMBDA_INLINE {
        const V sum = _mm512_add_ps(g[j], g[6 + j]);
        t[0][j] = g[j], t[3][j] = g[6 + j];
        t[1][j] = _mm512_mul_ps(half, _mm512_add_ps(sum, g[3 + j]));
        t[2][j] = _mm512_mul_ps(half, _mm512_sub_ps(sum, g[3 + j]));
    });
    unroll<4>([&](auto i) NK_LAMBDA_INLINE {
        const V sum = _mm512_add_ps(t[i][0], t[i][2]);
        u[4 * i] = t[i][0], u[4 * i + 3] = t[i][2];
        u[4 * i + 1] = _mm512_mul_ps(half, _mm512_add_ps(sum, t[i][1]));
        u[4 * i + 2] = _mm512_mul_ps(half, _mm512_sub_ps(sum, t[i][1]));
    });
}

struct Tiles {  // of an image: their number, and where number t is
    int64_t across, down;
    explicit Tiles(const cpu::WinogradTask& t) : across((t.out_width + 1) / 2), down((t.out_height + 1) / 2) {}
    int64_t image(int64_t t) const { return t / (across * down); }
    int64_t row(int64_t t) const { return t / across % down; }
    int64_t column(int64_t t) const { return t % across; }
};

const V* as_vectors(const float* p) { return reinterpret_cast<const V*>(p); }

// ---- channels first: tiles are columns ----

// V of up to 16 tiles of one row of tiles, for all channels: to[xi][channel][ld] from column `at` on.
void gather_columns_of_tiles(const cpu::WinogradTask& t, const Tiles& tiles, int64_t tile, int64_t n, float* to,
                             int64_t ld, int64_t at) {
    const int64_t y0 = 2 * tiles.row(tile) - t.top, x0 = 2 * tiles.column(tile) - t.left;
    const __mmask16 out = first_lanes(n);
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    const auto inside = [&](int64_t x) { return __mmask16(first_lanes(t.width - x) & ~first_lanes(-x)); };
    const __mmask16 masks[4] = {inside(x0), inside(x0 + 16), inside(x0 + 2), inside(x0 + 18)};
    const float* image = static_cast<const float*>(t.data) + tiles.image(tile) * t.image + x0;
    const int64_t step = t.channels * ld;
    for (int64_t c = 0; c < t.channels; ++c) {
        V d[16];
        unroll<4>([&](auto r) NK_LAMBDA_INLINE {
            const int64_t y = y0 + r;
            const bool there = y >= 0 && y < t.height;
            const float* p = image + c * t.channel + y * t.row;
            const auto load = [&](int m, int64_t x) NK_LAMBDA_INLINE {
                return _mm512_maskz_loadu_ps(there ? masks[m] : __mmask16(0), p + x);
            };
            const V a = load(0, 0), b = load(1, 16), e = load(2, 2), f = load(3, 18);
            d[4 * r] = _mm512_permutex2var_ps(a, even, b), d[4 * r + 1] = _mm512_permutex2var_ps(a, odd, b);
            d[4 * r + 2] = _mm512_permutex2var_ps(e, even, f), d[4 * r + 3] = _mm512_permutex2var_ps(e, odd, f);
        });
        transform_tile(d);
        float* v = to + c * ld + at;
        unroll<16>([&](auto i) NK_LAMBDA_INLINE { _mm512_mask_storeu_ps(v + i * step, out, d[i]); });
    }
}

// The outputs of up to 16 tiles of one row and of one channel: two rows of 2 n pixels.
NK_INLINE void put_columns(const cpu::WinogradTask& t, const Tiles& tiles, int64_t tile, int64_t n, int64_t r,
                           const V (&y)[4], float bias) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    const int64_t x = 2 * tiles.column(tile), count = 2 * n < t.out_width - x ? 2 * n : t.out_width - x;
    alignas(64) float z[2][32];
    for (int i = 0; i < 2; ++i) {
        const V b = _mm512_set1_ps(bias);
        _mm512_store_ps(z[i], _mm512_add_ps(_mm512_permutex2var_ps(y[2 * i], low, y[2 * i + 1]), b));
        _mm512_store_ps(z[i] + 16, _mm512_add_ps(_mm512_permutex2var_ps(y[2 * i], high, y[2 * i + 1]), b));
    }
    const auto each = [&](const cpu::ConvTarget& to, auto&& f) NK_LAMBDA_INLINE {
        for (int64_t i = 0; i < 2 && 2 * tiles.row(tile) + i < t.out_height; ++i)
            f(static_cast<float*>(to.data) + tiles.image(tile) * to.image + r * to.channel +
                  (2 * tiles.row(tile) + i) * to.axis[1] + x * to.axis[2],
              z[i]);
    };
    const auto put = [&](const cpu::ConvTarget& to) NK_LAMBDA_INLINE {
        each(to, [&](float* p, const float* from) NK_LAMBDA_INLINE {
            _mm512_mask_storeu_ps(p, first_lanes(count), _mm512_load_ps(from));
            if (count > 16) _mm512_mask_storeu_ps(p + 16, first_lanes(count - 16), _mm512_load_ps(from + 16));
        });
    };
    if (t.preact.data) put(t.preact);
    if (t.activate) t.activate(z, 64, t.activation, t.p);
    if (t.residual.data)
        each(t.residual, [&](float* p, float* to) NK_LAMBDA_INLINE {
            for (int64_t j = 0; j < count; ++j) to[j] += p[j * t.residual.axis[2]];
        });
    put(t.out);
}

// ---- channels last: tiles are rows ----

// V of one tile for all channels: to[xi][ld]
void gather_tile(const cpu::WinogradTask& t, const Tiles& tiles, int64_t tile, float* to, int64_t step) {
    const int64_t y0 = 2 * tiles.row(tile) - t.top, x0 = 2 * tiles.column(tile) - t.left;
    const float* image = static_cast<const float*>(t.data) + tiles.image(tile) * t.image;
    for (int64_t c = 0; c < t.channels; c += W) {
        const __mmask16 m = first_lanes(t.channels - c);
        V d[16];
        unroll<16>([&](auto i) NK_LAMBDA_INLINE {
            const int64_t y = y0 + i / 4, x = x0 + i % 4;
            const bool there = y >= 0 && y < t.height && x >= 0 && x < t.width;
            d[i] = _mm512_maskz_loadu_ps(there ? m : __mmask16(0), image + y * t.row + x * t.column + c);
        });
        transform_tile(d);
        unroll<16>([&](auto i) NK_LAMBDA_INLINE { _mm512_storeu_ps(to + i * step + c, d[i]); });
    }
}

// The outputs of one tile for up to 16 channels from r on.
NK_INLINE void put_tile(const cpu::WinogradTask& t, const Tiles& tiles, int64_t tile, int64_t r, int64_t n, V (&y)[4],
                        V bias) {
    const __mmask16 m = first_lanes(n);
    alignas(64) float z[4][16];
    for (int i = 0; i < 4; ++i) _mm512_store_ps(z[i], _mm512_add_ps(y[i], bias));
    const auto each = [&](const cpu::ConvTarget& to, auto&& f) NK_LAMBDA_INLINE {
        float* p = static_cast<float*>(to.data) + tiles.image(tile) * to.image + r * to.channel;
        for (int i = 0; i < 4; ++i) {
            const int64_t h = 2 * tiles.row(tile) + i / 2, w = 2 * tiles.column(tile) + i % 2;
            if (h < t.out_height && w < t.out_width) f(p + h * to.axis[1] + w * to.axis[2], z[i]);
        }
    };
    const auto put = [&](const cpu::ConvTarget& to) NK_LAMBDA_INLINE {
        each(to,
             [&](float* p, const float* from) NK_LAMBDA_INLINE { _mm512_mask_storeu_ps(p, m, _mm512_load_ps(from)); });
    };
    if (t.preact.data) put(t.preact);
    if (t.activate) t.activate(z, 64, t.activation, t.p);
    if (t.residual.data)
        each(t.residual, [&](float* p, float* to) NK_LAMBDA_INLINE {
            for (int64_t j = 0; j < n && j < W; ++j) to[j] += p[j * t.residual.channel];
        });
    put(t.out);
}

float bias_of(const cpu::WinogradTask& t, int64_t r) {
    return t.bias ? static_cast<const float*>(t.bias)[r * t.bias_step] : 0.f;
}

// 16 products for a tile of rows and a panel of columns: m[xi][rows][ld].
NK_INLINE void multiply(int rows, int64_t width, int64_t k, int64_t kc, const float* a, int64_t a_ld, int64_t a_step,
                        const float* b, int64_t b_step, float* m) {
    const int64_t vectors = (width + W - 1) / W, ld = vectors * W;
    const auto micro = pick_micro<L, float, float, L::kMaxRows>(rows, int(vectors));
    MicroArgs<float> g{};
    g.a_row = a_ld * 4, g.a_step = 4, g.b_step = ld * 4;
    g.n = int(ld), g.c_ld = g.init_ld = ld, g.target_row = ld * 4;
    for (int xi = 0; xi < 16; ++xi) {
        g.c = m + xi * kRows * kColumns, g.target = g.c;
        for (int64_t pc = 0; pc < k; pc += kc) {
            g.a = reinterpret_cast<const char*>(a + xi * a_step + pc);
            g.b = reinterpret_cast<const char*>(b + xi * b_step + pc * ld);
            g.k = k - pc < kc ? k - pc : kc;
            g.init = pc > 0 ? g.c : nullptr;
            micro(g);
        }
    }
}

void by_channels(const cpu::WinogradTask& t) {
    const Tiles tiles(t);
    float* const v = reinterpret_cast<float*>(t.work);
    float* const m = reinterpret_cast<float*>(t.work + t.work_m);
    const int64_t rows = t.r1 - t.r0, panels = (rows + kRows - 1) / kRows;
    const int64_t weight_ld = (t.channels + W - 1) / W * W;
    for (int64_t q = t.t0; q < t.t1; q += kColumns) {
        const int64_t n = t.t1 - q < kColumns ? t.t1 - q : kColumns, ld = (n + W - 1) / W * W;
        struct Run {
            int64_t at, n;
        } runs[kColumns];
        int count = 0;
        for (int64_t i = 0; i < n;) {
            const int64_t left = tiles.across - tiles.column(q + i), some = left < n - i ? left : n - i;
            runs[count++] = {i, some < W ? some : W};
            i += runs[count - 1].n;
        }
        if (n < ld)
            for (int64_t i = 0; i < 16 * t.channels; ++i) _mm512_storeu_ps(v + i * ld + ld - W, _mm512_setzero_ps());
        for (int i = 0; i < count; ++i) gather_columns_of_tiles(t, tiles, q + runs[i].at, runs[i].n, v, ld, runs[i].at);
        for (int64_t ip = 0; ip < panels; ++ip) {
            const int64_t r = t.r0 + rows * ip / panels;
            const int mr = int(t.r0 + rows * (ip + 1) / panels - r);
            multiply(mr, n, t.channels, t.kc, static_cast<const float*>(t.weight) + r * weight_ld, weight_ld,
                     t.weight_step, v, t.channels * ld, m);
            for (int k = 0; k < mr; ++k)
                for (int i = 0; i < count; ++i) {
                    V x[16], y[4];
                    unroll<16>([&](auto xi) NK_LAMBDA_INLINE {
                        x[xi] = _mm512_loadu_ps(m + xi * kRows * kColumns + k * ld + runs[i].at);
                    });
                    transform_sums(x, y);
                    put_columns(t, tiles, q + runs[i].at, runs[i].n, r + k, y, bias_of(t, r + k));
                }
        }
    }
}

void by_tiles(const cpu::WinogradTask& t) {
    const Tiles tiles(t);
    float* const v = reinterpret_cast<float*>(t.work);
    float* const m = reinterpret_cast<float*>(t.work + t.work_m);
    const int64_t a_ld = cpu::packed_row(t.channels, 4);
    for (int64_t q = t.t0; q < t.t1; q += cpu::kWinogradTilesLast) {
        const int64_t n = t.t1 - q < cpu::kWinogradTilesLast ? t.t1 - q : cpu::kWinogradTilesLast;
        const int64_t panels = (n + kRows - 1) / kRows;
        for (int64_t i = 0; i < n; ++i) gather_tile(t, tiles, q + i, v + i * a_ld, n * a_ld);
        for (int64_t r = t.r0; r < t.r1; r += kColumns) {
            const int64_t width = t.r1 - r < kColumns ? t.r1 - r : kColumns, ld = (width + W - 1) / W * W;
            alignas(64) float biases[kColumns] = {};
            for (int64_t j = 0; j < width; ++j) biases[j] = bias_of(t, r + j);
            for (int64_t ip = 0; ip < panels; ++ip) {
                const int64_t i = n * ip / panels;
                const int mr = int(n * (ip + 1) / panels - i);
                multiply(mr, width, t.channels, t.kc, v + i * a_ld, a_ld, n * a_ld,
                         static_cast<const float*>(t.weight) + r * t.channels, t.weight_step, m);
                for (int k = 0; k < mr; ++k)
                    for (int64_t j = 0; j < width; j += W) {
                        V x[16], y[4];
                        unroll<16>([&](auto xi) NK_LAMBDA_INLINE {
                            x[xi] = _mm512_loadu_ps(m + xi * kRows * kColumns + k * ld + j);
                        });
                        transform_sums(x, y);
                        put_tile(t, tiles, q + i + k, r + j, width - j, y, _mm512_load_ps(biases + j));
                    }
            }
        }
    }
}

void run_winograd(const cpu::WinogradTask& t) { t.channels_last ? by_tiles(t) : by_channels(t); }

// n floats, `step` apart.
NK_INLINE V load_strided(const float* p, int64_t step, int64_t n) {
    const __mmask16 m = first_lanes(n);
    if (step == 1) return _mm512_maskz_loadu_ps(m, p);
    const __m512i at = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                          _mm512_set1_epi32(int(step)));
    return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), m, at, p, 4);
}

void pack_winograd(const cpu::WinogradPack& t) {
    const bool along_rows = t.row <= t.channel;  // what lies closer together fills a vector
    const bool straight = along_rows == t.channels_last;
    alignas(64) float block[16][W][W];  // [xi][other][along]
    for (int64_t r = t.r0; r < t.r1; r += W)
        for (int64_t c = 0; c < t.channels; c += W) {
            const int64_t rows = t.r1 - r < W ? t.r1 - r : W, columns = t.channels - c < W ? t.channels - c : W;
            const int64_t others = along_rows ? columns : rows, along = along_rows ? rows : columns;
            const float* from = static_cast<const float*>(t.data) + r * t.row + c * t.channel;
            for (int64_t i = 0; i < W; ++i) {
                V g[9], u[16];
                unroll<9>([&](auto k) NK_LAMBDA_INLINE {
                    g[k] = load_strided(from + t.tap[k] + i * (along_rows ? t.channel : t.row),
                                        along_rows ? t.row : t.channel, i < others ? along : 0);
                });
                transform_window(g, u);
                unroll<16>([&](auto xi) NK_LAMBDA_INLINE { _mm512_store_ps(block[xi][i], u[xi]); });
            }
            for (int xi = 0; xi < 16; ++xi) {
                V x[16];
                unroll<16>([&](auto i) NK_LAMBDA_INLINE { x[i] = _mm512_load_ps(block[xi][i]); });
                if (!straight) transpose(x);
                float* to = t.to + xi * t.step;
                if (t.channels_last) {  // x[i]: rows of the weight at channel c + i
                    const int64_t panel = r / kColumns * kColumns, left = t.rows - panel;
                    const int64_t ld = left >= kColumns ? kColumns : (left + W - 1) / W * W;
                    to += panel * t.channels + (r - panel);
                    for (int64_t i = 0; i < columns; ++i) _mm512_storeu_ps(to + (c + i) * ld, x[i]);
                } else {
                    for (int64_t i = 0; i < rows; ++i) _mm512_storeu_ps(to + (r + i) * t.ld + c, x[i]);
                }
            }
        }
}

}  // namespace

void register_winograd(cpu::ConvolutionEntries& e) { e.winograd = run_winograd, e.pack_winograd = pack_winograd; }

#else

void register_winograd(cpu::ConvolutionEntries& e) { e.winograd = nullptr, e.pack_winograd = nullptr; }

#endif

}  // namespace nk::NK_ISA
