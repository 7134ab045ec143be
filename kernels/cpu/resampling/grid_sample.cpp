// Samples of an image at the points of a grid, and gradients. Channels are laid side by side, so that a point is a
// few vectors of the image: those that it is made of are added with their weights, or in the gradient added to. One
// call has some channels of an image to itself and takes points in their order.
#include "pixels.h"
#include "register.h"

namespace nk::NK_ISA {

namespace {

// One number, with the names that vectors have.
template <class S>
struct One {
    S v;
    One() = default;
    NK_HD One(S x) : v(x) {}
    friend NK_HD One operator*(One a, One b) { return a.v * b.v; }
    friend NK_HD One operator-(One a, One b) { return a.v - b.v; }
    friend NK_HD One mad(One a, One b, One c) { return a.v * b.v + c.v; }
};

template <class T, int dims, GridMode mode>
struct Sampler {
    using S = scalar_for<T>;
    using Number = One<S>;
    using V = compute_vec<T>;
    using Taps = GridTaps<S, mode>;
    static constexpr int L = V::lanes, K = Taps::count, kAll = dims == 2 ? K * K : K * K * K;
    static constexpr int kChunk = cpu::kGridChunk;

    // What some points are made of in one dim.
    struct Column {
        int32_t index[K][kChunk];
        S weight[K][kChunk], bend[K][kChunk], scale[kChunk];

        Taps taps(int64_t i) const {
            Taps t;
            for (int k = 0; k < K; ++k) t.index[k] = index[k][i], t.weight[k] = weight[k][i], t.bend[k] = bend[k][i];
            t.scale = scale[i];
            return t;
        }
    };
    // The same in all dims: places are numbers of pixels, of which the one behind the last is outside.
    struct Points {
        Column axis[3];  // W, H, D
        int32_t at[kAll][kChunk];
        S weight[kAll][kChunk];
    };

    static const T* image(const void* t, const cpu::GridSample& p, const int64_t (&stride)[5]) {
        return static_cast<const T*>(t) + p.n * stride[0] + p.c0 * stride[1];
    }
    static Pixels<T> pixels(const void* t, const cpu::GridSample& p, const int64_t (&s)[5], const int64_t (&size)[3]) {
        return {image(t, p, s), {s[1], s[2], s[3], s[4]}, {size[0], size[1], size[2]}};
    }
    static int64_t count(const int64_t (&size)[3]) { return size[0] * size[1] * size[2]; }

    // The rule as constants, so that the compiler makes vectors of the loop.
    template <GridPadding padding, bool corners>
    static void fill(const cpu::GridSample& p, int64_t size, const S (&x)[kChunk], Column& to) {
        const GridRule rule{mode, padding, corners, dims, p.rule.gradient};
        for (int i = 0; i < kChunk; ++i) {
            const Taps t(rule, size, x[i]);
            for (int k = 0; k < K; ++k) {
                to.index[k][i] = static_cast<int32_t>(t.index[k]);
                to.weight[k][i] = t.weight[k], to.bend[k][i] = t.bend[k];
            }
            to.scale[i] = t.scale;
        }
    }
    static void fill_any(const cpu::GridSample& p, int64_t size, const S (&x)[kChunk], Column& to) {
        const bool corners = p.rule.align_corners != 0;
        switch (p.rule.padding) {
            case GridPadding::zeros:
                return corners ? fill<GridPadding::zeros, true>(p, size, x, to)
                               : fill<GridPadding::zeros, false>(p, size, x, to);
            case GridPadding::border:
                return corners ? fill<GridPadding::border, true>(p, size, x, to)
                               : fill<GridPadding::border, false>(p, size, x, to);
            case GridPadding::reflection:
                return corners ? fill<GridPadding::reflection, true>(p, size, x, to)
                               : fill<GridPadding::reflection, false>(p, size, x, to);
        }
    }

    // Points begin .. begin + number - 1.
    static void find(const cpu::GridSample& p, int64_t begin, int64_t number, Points& to) {
        const T* const grid = static_cast<const T*>(p.grid) + p.n * p.grid_stride[0];
        S x[dims][kChunk] = {};
        int64_t w = begin % p.points[2], h = begin / p.points[2] % p.points[1], d = begin / p.points[2] / p.points[1];
        for (int64_t i = 0; i < number; ++i) {
            const T* const at = grid + d * p.grid_stride[1] + h * p.grid_stride[2] + w * p.grid_stride[3];
            for (int j = 0; j < dims; ++j) x[j][i] = to_number(at[j * p.grid_stride[4]]);
            if (++w == p.points[2]) {
                w = 0;
                if (++h == p.points[1]) h = 0, ++d;
            }
        }
        for (int j = 0; j < dims; ++j) fill_any(p, p.size[2 - j], x[j], to.axis[j]);
        const int32_t outside = static_cast<int32_t>(count(p.size));
        const int32_t row = static_cast<int32_t>(p.size[2]), plane = static_cast<int32_t>(p.size[1] * p.size[2]);
        for (int d = 0; d < (dims == 2 ? 1 : K); ++d)
            for (int h = 0; h < K; ++h)
                for (int w = 0; w < K; ++w) {
                    const int k = (d * K + h) * K + w;
                    const Column &along_x = to.axis[0], &along_y = to.axis[1], &along_z = to.axis[dims - 1];
                    for (int i = 0; i < kChunk; ++i) {
                        S weight = along_y.weight[h][i] * along_x.weight[w][i];
                        const int32_t in_x = along_x.index[w][i], in_y = along_y.index[h][i];
                        int32_t at = in_y * row + in_x, least = in_x < in_y ? in_x : in_y;
                        if constexpr (dims == 3) {
                            const int32_t in_z = along_z.index[d][i];
                            weight *= along_z.weight[d][i];
                            at += in_z * plane;
                            least = in_z < least ? in_z : least;
                        }
                        to.at[k][i] = least < 0 ? outside : at;
                        to.weight[k][i] = weight;
                    }
                }
    }

    // The image's channels as pixels, with one of zeros behind them.
    static S* load_image(const cpu::GridSample& p) {
        S* const all = static_cast<S*>(p.scratch);
        if (p.few) return all;
        const int64_t number = count(p.size);
        if (p.width == 1) {
            PixelMover<T>::load_planes(pixels(p.x, p, p.x_stride, p.size), p.count, 0, number, all, number + 1);
            for (int64_t c = 0; c < p.count; ++c) all[c * (number + 1) + number] = 0;
            return all;
        }
        PixelMover<T>::load_pixels(pixels(p.x, p, p.x_stride, p.size), p.count, 0, number, all, p.width);
        for (int64_t c = 0; c < p.width; ++c) all[number * p.width + c] = 0;
        return all;
    }
    // Where a call has few points: only the pixels that these are made of, in their order.
    static void load_taps(const cpu::GridSample& p, Points& points, int64_t number, S* all) {
        if (!p.few) return;
        const T* const from = image(p.x, p, p.x_stride);
        const int64_t outside = count(p.size);
        for (int64_t i = 0; i < number; ++i)
            for (int k = 0; k < kAll; ++k) {
                int64_t at = points.at[k][i];
                S* const to = all + (i * kAll + k) * p.width;
                points.at[k][i] = static_cast<int32_t>(i) * kAll + k;
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
        Points points;
        alignas(64) S sums[kChunk * cpu::kGridWidth];
        const int64_t total = count(p.points), number_of_pixels = count(p.size);
        T* const out = static_cast<T*>(p.out) + (p.n * p.channels + p.c0) * total;
        for (int64_t begin = p.p0; begin < p.p1; begin += kChunk) {
            const int64_t number = min64(p.p1 - begin, kChunk);
            find(p, begin, number, points);
            load_taps(p, points, number, all);
            if (p.width == 1) {
                for (int64_t c = 0; c < p.count; ++c) {
                    const S* const plane = all + c * (number_of_pixels + 1);
                    S sum[kChunk];
                    for (int64_t i = 0; i < number; ++i) {
                        sum[i] = plane[points.at[0][i]] * points.weight[0][i];
                        for (int k = 1; k < kAll; ++k) sum[i] += plane[points.at[k][i]] * points.weight[k][i];
                    }
                    T* const to = out + c * total + begin;
                    for (int64_t i = 0; i < number; ++i) put_number(to[i], sum[i]);
                }
                continue;
            }
            for (int64_t i = 0; i < number; ++i)
                for (int64_t c = 0; c < p.width; c += L) {
                    V sum = load(all + points.at[0][i] * p.width + c);
                    if constexpr (kAll > 1) {
                        sum = sum * V(points.weight[0][i]);
                        for (int k = 1; k < kAll; ++k)
                            sum = mad(load(all + points.at[k][i] * p.width + c), V(points.weight[k][i]), sum);
                    }
                    store(sums + i * p.width + c, sum);
                }
            PixelMover<T>::store_pixels(sums, p.width, out + begin, total, p.count, number);
        }
    }

    static void image_gradient(const cpu::GridSample& given) {
        const cpu::GridSample p = given;
        S* const all = static_cast<S*>(p.scratch);
        const int64_t number_of_pixels = count(p.size), planes = p.width == 1 ? p.count : 1;
        for (int64_t i = 0; i < (number_of_pixels + 1) * p.width * planes; ++i) all[i] = 0;
        Points points;
        alignas(64) S g[kChunk * cpu::kGridWidth];
        T* const out = static_cast<T*>(p.out) + (p.n * p.channels + p.c0) * number_of_pixels;
        const Pixels<T> from = pixels(p.g, p, p.g_stride, p.points);
        for (int64_t begin = p.p0; begin < p.p1; begin += kChunk) {
            const int64_t number = min64(p.p1 - begin, kChunk);
            find(p, begin, number, points);
            if (p.width == 1) {
                PixelMover<T>::load_planes(from, p.count, begin, number, g, kChunk);
                for (int64_t c = 0; c < p.count; ++c)
                    for (int64_t i = 0; i < number; ++i)
                        for (int k = 0; k < kAll; ++k)
                            all[c * (number_of_pixels + 1) + points.at[k][i]] +=
                                g[c * kChunk + i] * points.weight[k][i];
                continue;
            }
            PixelMover<T>::load_pixels(from, p.count, begin, number, g, p.width);
            for (int64_t i = 0; i < number; ++i)
                for (int64_t c = 0; c < p.width; c += L) {
                    const V given_here = load(g + i * p.width + c);
                    for (int k = 0; k < kAll; ++k) {
                        S* const to = all + points.at[k][i] * p.width + c;
                        store(to, mad(given_here, V(points.weight[k][i]), load(to)));
                    }
                }
        }
        if (p.width > 1) {
            PixelMover<T>::store_pixels(all, p.width, out, number_of_pixels, p.count, number_of_pixels);
            return;
        }
        for (int64_t c = 0; c < p.count; ++c)
            for (int64_t i = 0; i < number_of_pixels; ++i)
                put_number(out[c * number_of_pixels + i], all[c * (number_of_pixels + 1) + i]);
    }

    // How fast the sample changes along each dim, in vectors of channels or one channel: at = pixels, x y z = taps.
    template <class V>
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
        Points points;
        alignas(64) S g[kChunk * cpu::kGridWidth];
        S* const out = static_cast<S*>(p.out) + p.n * count(p.points) * dims;
        const Pixels<T> from = pixels(p.g, p, p.g_stride, p.points);
        for (int64_t begin = p.p0; begin < p.p1; begin += kChunk) {
            const int64_t number = min64(p.p1 - begin, kChunk);
            find(p, begin, number, points);
            load_taps(p, points, number, all);
            S* const to = out + begin * dims;
            if (p.width == 1) {
                PixelMover<T>::load_planes(from, p.count, begin, number, g, kChunk);
                planes_gradient(p, points, number, all, g, to);
                continue;
            }
            PixelMover<T>::load_pixels(from, p.count, begin, number, g, p.width);
            for (int64_t i = 0; i < number; ++i) {
                const Taps x = points.axis[0].taps(i), y = points.axis[1].taps(i), z = points.axis[dims - 1].taps(i);
                V sum[dims];
                for (int j = 0; j < dims; ++j) sum[j] = V(S(0));
                for (int64_t c = 0; c < p.width; c += L) {
                    V at[kAll], slope[dims];
                    for (int k = 0; k < kAll; ++k) at[k] = load(all + points.at[k][i] * p.width + c);
                    slopes(at, x, y, z, slope);
                    const V given_here = load(g + i * p.width + c);
                    for (int j = 0; j < dims; ++j) sum[j] = mad(slope[j], given_here, sum[j]);
                }
                for (int j = 0; j < dims; ++j) to[i * dims + j] = reduce_add(sum[j]) * points.axis[j].scale[i];
            }
        }
    }
    // Of few channels, plane by plane.
    static void planes_gradient(const cpu::GridSample& p, const Points& points, int64_t number, const S* all,
                                const S* g, S* to) {
        S sum[dims][kChunk] = {};
        for (int64_t c = 0; c < p.count; ++c) {
            const S* const plane = all + c * (count(p.size) + 1);
            for (int64_t i = 0; i < number; ++i) {
                Number at[kAll], slope[dims];
                for (int k = 0; k < kAll; ++k) at[k] = plane[points.at[k][i]];
                slopes(at, points.axis[0].taps(i), points.axis[1].taps(i), points.axis[dims - 1].taps(i), slope);
                for (int j = 0; j < dims; ++j) sum[j][i] += slope[j].v * g[c * kChunk + i];
            }
        }
        for (int64_t i = 0; i < number; ++i)
            for (int j = 0; j < dims; ++j) to[i * dims + j] = sum[j][i] * points.axis[j].scale[i];
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
