// Planes as pixels and back: `width` channels side by side for each pixel, in numbers that are computed with.
#pragma once

#include "../elementwise/storage.h"
#include "../simd/shuffle.h"

namespace nk::NK_ISA {

// A square of lanes in the machine's registers.
template <class S>
struct Square {
    static constexpr int L = vec<S>::lanes;
    decltype(vec<S>::v) row[L];

    NK_HD void turn() {
        if constexpr (L > 1) transpose(row);
    }
};

// Some channels of an image with any strides: C, D, H, W.
template <class T>
struct Pixels {
    const T* data;
    int64_t stride[4];
    int64_t size[3];
};

template <class T>
struct PixelMover {
    using S = scalar_for<T>;
    using V = compute_vec<T>;
    static constexpr int L = V::lanes;

    // `count` channels of `number` pixels that lie `step` apart, to numbers to[pixel * width + channel]; channels up to
    // the width become 0.
    static void load_run(const T* from, int64_t channel, int64_t step, int64_t count, int64_t number, S* to,
                         int64_t width) {
        if (channel == 1) {
            for (int64_t p = 0; p < number; ++p)
                for (int64_t c = 0; c < width; c += L)
                    store(to + p * width + c, load(from + p * step + c, first<S>(count - c)));
            return;
        }
        if (step != 1) {
            for (int64_t p = 0; p < number; ++p)
                for (int64_t c = 0; c < width; ++c)
                    to[p * width + c] = c < count ? to_number(from[p * step + c * channel]) : S(0);
            return;
        }
        for (int64_t p = 0; p < number; p += L) {
            const int64_t here = min64(number - p, L);
            for (int64_t c = 0; c < width; c += L) {
                Square<S> square;
                for (int i = 0; i < L; ++i) {
                    const T* const row = from + (c + i) * channel + p;
                    square.row[i] = c + i >= count ? V(S(0)).v
                                    : here == L    ? load(row).v
                                                   : load(row, static_cast<int>(here)).v;
                }
                square.turn();
                S* const at = to + p * width + c;
                if (here == L) {
                    for (int i = 0; i < L; ++i) store(at + i * width, V(square.row[i]));
                } else {
                    for (int i = 0; i < here; ++i) store(at + i * width, V(square.row[i]));
                }
            }
        }
    }

    // Pixels begin .. begin + number - 1 in the order [D, H, W].
    static void load_pixels(const Pixels<T>& x, int64_t count, int64_t begin, int64_t number, S* to, int64_t width) {
        const int64_t* const s = x.stride;
        const bool flat =
            (x.size[1] == 1 || s[2] == x.size[2] * s[3]) && (x.size[0] == 1 || (s[1] == x.size[1] * x.size[2] * s[3]));
        const int64_t run = flat ? x.size[0] * x.size[1] * x.size[2] : x.size[2];
        while (number > 0) {
            const int64_t row = begin / run, at = begin % run, here = min64(run - at, number);
            const int64_t h = flat ? 0 : row % x.size[1], d = flat ? 0 : row / x.size[1];
            load_run(x.data + d * s[1] + h * s[2] + at * s[3], s[0], s[3], count, here, to, width);
            begin += here, number -= here, to += here * width;
        }
    }

    // Plane by plane, each `apart` numbers behind the last.
    static void load_planes(const Pixels<T>& x, int64_t count, int64_t begin, int64_t number, S* to, int64_t apart) {
        const int64_t *const s = x.stride, run = x.size[2];
        for (int64_t done = 0; done < number;) {
            const int64_t row = (begin + done) / run, at = (begin + done) % run, here = min64(run - at, number - done);
            const T* const from = x.data + row / x.size[1] * s[1] + row % x.size[1] * s[2] + at * s[3];
            for (int64_t c = 0; c < count; ++c) {
                const T* const line = from + c * s[0];
                S* const by = to + c * apart + done;
                if (s[3] == 1)
                    for (int64_t i = 0; i < here; ++i) by[i] = to_number(line[i]);
                else
                    for (int64_t i = 0; i < here; ++i) by[i] = to_number(line[i * s[3]]);
            }
            done += here;
        }
    }

    // To planes that are `channel` apart, whose pixels lie side by side.
    static void store_pixels(const S* from, int64_t width, T* to, int64_t channel, int64_t count, int64_t number) {
        for (int64_t p = 0; p < number; p += L) {
            const int64_t here = min64(number - p, L);
            for (int64_t c = 0; c < count; c += L) {
                Square<S> square;
                for (int i = 0; i < L; ++i) square.row[i] = i < here ? load(from + (p + i) * width + c).v : V(S(0)).v;
                square.turn();
                const int64_t planes = min64(count - c, L);
                for (int i = 0; i < planes; ++i) {
                    T* const row = to + (c + i) * channel + p;
                    if (here == L)
                        store(row, V(square.row[i]));
                    else
                        store(row, V(square.row[i]), static_cast<int>(here));
                }
            }
        }
    }
};

}  // namespace nk::NK_ISA
