// Samples of an image at the points of a grid, and gradients. Channels are laid side by side, so that a point is a
// few vectors of the image: those that it is made of are added with their weights, or in the gradient added to. One
// call has some channels of an image to itself and takes points in their order.
#include "pixels.h"
#include "register.h"

namespace nk::NK_ISA {

namespace {

template <class T, int dims, GridMode mode>
struct Sampler {
    using S = scalar_for<T>;
    using V = compute_vec<T>;
    using Taps = GridTaps<S, mode>;
    static constexpr int L = V::lanes, K = Taps::count, kAll = dims == 2 ? K * K : K * K * K;
    static constexpr int kChunk = cpu::kGridChunk;

    // Places are numbers of pixels of `width` numbers; the pixel behind the last one is outside.
    struct Point {
        int64_t at[kAll];
        S weight[kAll];
    };

    static const T* image(const void* t, const cpu::GridSample& p, const int64_t (&stride)[5]) {
        return static_cast<const T*>(t) + p.n * stride[0] + p.c0 * stride[1];
    }
    static Pixels<T> pixels(const void* t, const cpu::GridSample& p, const int64_t (&s)[5], const int64_t (&size)[3]) {
        return {image(t, p, s), {s[1], s[2], s[3], s[4]}, {size[0], size[1], size[2]}};
    }
    static int64_t count(const int64_t (&size)[3]) { return size[0] * size[1] * size[2]; }

    // f(number in the chunk, taps of W, H and D) for points begin .. begin + number - 1.
    template <class F>
    static NK_HD void each_point(const cpu::GridSample& p, int64_t begin, int64_t number, F f) {
        const T* const grid = static_cast<const T*>(p.grid) + p.n * p.grid_stride[0];
        int64_t w = begin % p.points[2], h = begin / p.points[2] % p.points[1], d = begin / p.points[2] / p.points[1];
        for (int64_t i = 0; i < number; ++i) {
            const T* const at = grid + d * p.grid_stride[1] + h * p.grid_stride[2] + w * p.grid_stride[3];
            const Taps x(p.rule, p.size[2], to_number(at[0])), y(p.rule, p.size[1], to_number(at[p.grid_stride[4]]));
            if constexpr (dims == 2)
                f(i, x, y, x);
            else
                f(i, x, y, Taps(p.rule, p.size[0], to_number(at[2 * p.grid_stride[4]])));
            if (++w == p.points[2]) {
                w = 0;
                if (++h == p.points[1]) h = 0, ++d;
            }
        }
    }

    static NK_HD void combine(const cpu::GridSample& p, const Taps& x, const Taps& y, const Taps& z, Point& to) {
        const int64_t outside = count(p.size);
        for (int d = 0; d < (dims == 2 ? 1 : K); ++d)
            for (int h = 0; h < K; ++h)
                for (int w = 0; w < K; ++w) {
                    const int k = (d * K + h) * K + w;
                    S weight = y.weight[h] * x.weight[w];
                    int64_t at = y.index[h] * p.size[2] + x.index[w];
                    bool there = y.index[h] >= 0 && x.index[w] >= 0;
                    if constexpr (dims == 3) {
                        weight *= z.weight[d];
                        at += z.index[d] * p.size[1] * p.size[2];
                        there = there && z.index[d] >= 0;
                    }
                    to.at[k] = there ? at : outside;
                    to.weight[k] = weight;
                }
    }

    // The image's channels as pixels, with one of zeros behind them.
    static S* load_image(const cpu::GridSample& p) {
        S* const all = static_cast<S*>(p.scratch);
        if (p.few) return all;
        const int64_t number = count(p.size);
        PixelMover<T>::load_pixels(pixels(p.x, p, p.x_stride, p.size), p.count, 0, number, all, p.width);
        for (int64_t c = 0; c < p.width; ++c) all[number * p.width + c] = 0;
        return all;
    }
    // Where a call has few points: only the pixels that these are made of, in their order.
    static void load_taps(const cpu::GridSample& p, Point* points, int64_t number, S* all) {
        if (!p.few) return;
        const T* const from = image(p.x, p, p.x_stride);
        const int64_t outside = count(p.size);
        for (int64_t i = 0; i < number; ++i)
            for (int k = 0; k < kAll; ++k) {
                int64_t at = points[i].at[k];
                S* const to = all + (i * kAll + k) * p.width;
                points[i].at[k] = i * kAll + k;
                if (at == outside) {
                    for (int64_t c = 0; c < p.width; ++c) to[c] = 0;
                    continue;
                }
                const int64_t w = at % p.size[2], h = at / p.size[2] % p.size[1], d = at / p.size[2] / p.size[1];
                at = d * p.x_stride[2] + h * p.x_stride[3] + w * p.x_stride[4];
                PixelMover<T>::load_run(from + at, p.x_stride[1], 0, p.count, 1, to, p.width);
            }
    }

    static void sample(const cpu::GridSample& given) {
        const cpu::GridSample p = given;
        S* const all = load_image(p);
        Point points[kChunk];
        alignas(64) S sums[kChunk * cpu::kGridWidth];
        const int64_t total = count(p.points);
        T* const out = static_cast<T*>(p.out) + (p.n * p.channels + p.c0) * total;
        for (int64_t begin = p.p0; begin < p.p1; begin += kChunk) {
            const int64_t number = min64(p.p1 - begin, kChunk);
            each_point(p, begin, number,
                       [&](int64_t i, const Taps& x, const Taps& y, const Taps& z) { combine(p, x, y, z, points[i]); });
            load_taps(p, points, number, all);
            for (int64_t i = 0; i < number; ++i) {
                const Point& point = points[i];
                for (int64_t c = 0; c < p.width; c += L) {
                    V sum = load(all + point.at[0] * p.width + c);
                    if constexpr (kAll > 1) {
                        sum = sum * V(point.weight[0]);
                        for (int k = 1; k < kAll; ++k)
                            sum = mad(load(all + point.at[k] * p.width + c), V(point.weight[k]), sum);
                    }
                    store(sums + i * p.width + c, sum);
                }
            }
            PixelMover<T>::store_pixels(sums, p.width, out + begin, total, p.count, number);
        }
    }

    static void image_gradient(const cpu::GridSample& given) {
        const cpu::GridSample p = given;
        S* const all = static_cast<S*>(p.scratch);
        const int64_t number_of_pixels = count(p.size);
        for (int64_t i = 0; i < (number_of_pixels + 1) * p.width; i += L) store(all + i, V(S(0)));
        Point points[kChunk];
        alignas(64) S g[kChunk * cpu::kGridWidth];
        for (int64_t begin = p.p0; begin < p.p1; begin += kChunk) {
            const int64_t number = min64(p.p1 - begin, kChunk);
            PixelMover<T>::load_pixels(pixels(p.g, p, p.g_stride, p.points), p.count, begin, number, g, p.width);
            each_point(p, begin, number,
                       [&](int64_t i, const Taps& x, const Taps& y, const Taps& z) { combine(p, x, y, z, points[i]); });
            for (int64_t i = 0; i < number; ++i) {
                const Point& point = points[i];
                for (int64_t c = 0; c < p.width; c += L) {
                    const V given_here = load(g + i * p.width + c);
                    for (int k = 0; k < kAll; ++k) {
                        S* const to = all + point.at[k] * p.width + c;
                        store(to, mad(given_here, V(point.weight[k]), load(to)));
                    }
                }
            }
        }
        T* const out = static_cast<T*>(p.out) + (p.n * p.channels + p.c0) * number_of_pixels;
        PixelMover<T>::store_pixels(all, p.width, out, number_of_pixels, p.count, number_of_pixels);
    }

    // How fast the sample changes along each dim, in vectors of channels: at = pixels, x y z = taps.
    static NK_HD void slopes(const V (&at)[kAll], const Taps& x, const Taps& y, const Taps& z, V (&to)[dims]) {
        if constexpr (mode == GridMode::bilinear && dims == 2) {
            to[0] = mad(at[3] - at[2], V(y.weight[1]), (at[1] - at[0]) * V(y.weight[0]));
            to[1] = mad(at[3] - at[1], V(x.weight[1]), (at[2] - at[0]) * V(x.weight[0]));
        } else if constexpr (mode == GridMode::bilinear) {
            for (int i = 0; i < 3; ++i) to[i] = V(S(0));
            for (int d = 0; d < 2; ++d)
                for (int h = 0; h < 2; ++h) {
                    const int k = d * 2 + h;
                    to[0] = mad(at[2 * k + 1] - at[2 * k], V(z.weight[d] * y.weight[h]), to[0]);
                    to[1] = mad(at[d * 4 + 2 + h] - at[d * 4 + h], V(z.weight[d] * x.weight[h]), to[1]);
                    to[2] = mad(at[4 + k] - at[k], V(y.weight[d] * x.weight[h]), to[2]);
                }
        } else {
            to[0] = to[1] = V(S(0));
            for (int h = 0; h < K; ++h) {
                V row = at[h * K] * V(x.weight[0]), bend = at[h * K] * V(x.bend[0]);
                for (int w = 1; w < K; ++w) {
                    row = mad(at[h * K + w], V(x.weight[w]), row);
                    bend = mad(at[h * K + w], V(x.bend[w]), bend);
                }
                to[0] = mad(bend, V(y.weight[h]), to[0]);
                to[1] = mad(row, V(y.bend[h]), to[1]);
            }
        }
    }

    static void grid_gradient(const cpu::GridSample& given) {
        const cpu::GridSample p = given;
        S* const all = load_image(p);
        Point points[kChunk];
        Taps taps_x[kChunk], taps_y[kChunk], taps_z[dims == 3 ? kChunk : 1];
        alignas(64) S g[kChunk * cpu::kGridWidth];
        S* const out = static_cast<S*>(p.out) + p.n * count(p.points) * dims;
        for (int64_t begin = p.p0; begin < p.p1; begin += kChunk) {
            const int64_t number = min64(p.p1 - begin, kChunk);
            PixelMover<T>::load_pixels(pixels(p.g, p, p.g_stride, p.points), p.count, begin, number, g, p.width);
            each_point(p, begin, number, [&](int64_t i, const Taps& x, const Taps& y, const Taps& z) {
                combine(p, x, y, z, points[i]);
                taps_x[i] = x, taps_y[i] = y;
                if constexpr (dims == 3) taps_z[i] = z;
            });
            load_taps(p, points, number, all);
            for (int64_t i = 0; i < number; ++i) {
                const Taps &x = taps_x[i], &y = taps_y[i], &z = taps_z[dims == 3 ? i : 0];
                V sum[dims];
                for (int j = 0; j < dims; ++j) sum[j] = V(S(0));
                for (int64_t c = 0; c < p.width; c += L) {
                    V at[kAll], slope[dims];
                    for (int k = 0; k < kAll; ++k) at[k] = load(all + points[i].at[k] * p.width + c);
                    slopes(at, x, y, z, slope);
                    const V given_here = load(g + i * p.width + c);
                    for (int j = 0; j < dims; ++j) sum[j] = mad(slope[j], given_here, sum[j]);
                }
                const S scale[3] = {x.scale, y.scale, z.scale};
                for (int j = 0; j < dims; ++j) out[(begin + i) * dims + j] = reduce_add(sum[j]) * scale[j];
            }
        }
    }
};

template <class T>
struct Samplers {
    // f.operator()<dims, mode>()
    template <class F>
    static void choose(const GridRule& r, F f) {
        if (r.dims == 3) {
            r.mode == GridMode::nearest ? f.template operator()<3, GridMode::nearest>()
                                        : f.template operator()<3, GridMode::bilinear>();
            return;
        }
        switch (r.mode) {
            case GridMode::nearest:
                return f.template operator()<2, GridMode::nearest>();
            case GridMode::bilinear:
                return f.template operator()<2, GridMode::bilinear>();
            case GridMode::bicubic:
                return f.template operator()<2, GridMode::bicubic>();
        }
    }
    static void sample(const cpu::GridSample& p) {
        choose(p.rule, [&]<int dims, GridMode mode>() { Sampler<T, dims, mode>::sample(p); });
    }
    static void image_gradient(const cpu::GridSample& p) {
        choose(p.rule, [&]<int dims, GridMode mode>() { Sampler<T, dims, mode>::image_gradient(p); });
    }
    static void grid_gradient(const cpu::GridSample& p) {
        choose(p.rule, [&]<int dims, GridMode mode>() {
            if constexpr (mode != GridMode::nearest) Sampler<T, dims, mode>::grid_gradient(p);
        });
    }
    static void sums(const cpu::GridSums& p) {
        using S = scalar_for<T>;
        const S* const rows = static_cast<const S*>(p.rows);
        for (int64_t i = p.begin; i < p.end; ++i) {
            S sum = 0;
            for (int64_t r = 0; r < p.number; ++r) sum += rows[r * p.count + i];
            put_number(static_cast<T*>(p.out)[i], sum);
        }
    }
};

template <int D>
void fill_table(cpu::ResamplingEntries& e) {
    using T = typename storage<D>::type;
    using G = Samplers<T>;
    e.sample[D] = G::sample, e.image_gradient[D] = G::image_gradient, e.grid_gradient[D] = G::grid_gradient;
    e.grid_sums[D] = G::sums, e.lanes[D] = lanes_for<T>;
}

}  // namespace

void register_grid_sample(cpu::ResamplingEntries& e) {
    fill_table<0>(e);
    fill_table<1>(e);
    fill_table<2>(e);
    fill_table<3>(e);
}

}  // namespace nk::NK_ISA
