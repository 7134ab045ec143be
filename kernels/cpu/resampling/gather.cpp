// Each output is a weighted sum of elements of the source: of rows in each plane, of terms in each row, so that sums
// nest as in torch. A gradient is the same with the terms listed by the elements of the source.
#include "../elementwise/storage.h"
#include "register.h"

namespace nk::NK_ISA {

namespace {

template <class T>
struct Gather {
    using S = scalar_for<T>;
    using V = compute_vec<T>;
    static constexpr int L = V::lanes;

    struct Axis {
        const int64_t* source;
        const S* weight;
        int64_t begin, end;  // terms

        NK_HD Axis(const cpu::ResampleAxis& a, int64_t o)
            : source(a.source), weight(static_cast<const S*>(a.weight)), begin(a.start[o]), end(a.start[o + 1]) {}
    };

    // The sum of f(offset in x) over the terms of all three dims.
    template <class Sum, class F>
    static NK_HD Sum sum_of(const cpu::Resample& p, const Axis& d, const Axis& h, const Axis& w, F f) {
        Sum volume(S(0));
        for (int64_t i = d.begin; i < d.end; ++i) {
            Sum plane(S(0));
            for (int64_t j = h.begin; j < h.end; ++j) {
                const int64_t at = d.source[i] * p.x_stride[2] + h.source[j] * p.x_stride[3];
                Sum row(S(0));
                for (int64_t k = w.begin; k < w.end; ++k)
                    row = row + f(at + w.source[k] * p.x_stride[4]) * Sum(w.weight[k]);
                plane = plane + row * Sum(h.weight[j]);
            }
            volume = volume + plane * Sum(d.weight[i]);
        }
        return volume;
    }

    static void planes(const cpu::Resample& given) {
        const cpu::Resample p = given;  // what is written can't be a part of it
        for (int64_t r = p.begin; r < p.end; ++r) {
            const int64_t oh = r % p.axis[1].size, rest = r / p.axis[1].size, od = rest % p.axis[0].size;
            const int64_t plane = rest / p.axis[0].size, c = plane % p.channels, n = plane / p.channels;
            const T* const x = static_cast<const T*>(p.x) + n * p.x_stride[0] + c * p.x_stride[1];
            T* const to = static_cast<T*>(p.out) + n * p.out_stride[0] + c * p.out_stride[1] + od * p.out_stride[2] +
                          oh * p.out_stride[3];
            const Axis d(p.axis[0], od), h(p.axis[1], oh);
            for (int64_t ow = 0; ow < p.axis[2].size; ++ow)
                put_number(to[ow * p.out_stride[4]],
                           sum_of<S>(p, d, h, Axis(p.axis[2], ow), [&](int64_t at) { return to_number(x[at]); }));
        }
    }

    static void channels(const cpu::Resample& given) {
        const cpu::Resample p = given;
        for (int64_t r = p.begin; r < p.end; ++r) {
            const int64_t oh = r % p.axis[1].size, rest = r / p.axis[1].size, od = rest % p.axis[0].size;
            const int64_t n = rest / p.axis[0].size;
            const T* const x = static_cast<const T*>(p.x) + n * p.x_stride[0];
            T* const row = static_cast<T*>(p.out) + n * p.out_stride[0] + od * p.out_stride[2] + oh * p.out_stride[3];
            const Axis d(p.axis[0], od), h(p.axis[1], oh);
            for (int64_t ow = 0; ow < p.axis[2].size; ++ow) {
                const Axis w(p.axis[2], ow);
                T* const to = row + ow * p.out_stride[4];
                int64_t c = 0;
                for (; c + L <= p.channels; c += L)
                    store(to + c, sum_of<V>(p, d, h, w, [&](int64_t at) { return load(x + at + c); }));
                if (c == p.channels) continue;
                const int n_left = static_cast<int>(p.channels - c);
                store(to + c, sum_of<V>(p, d, h, w, [&](int64_t at) { return load(x + at + c, n_left); }), n_left);
            }
        }
    }
};

template <int D>
void fill_table(cpu::ResamplingEntries& e) {
    using G = Gather<typename storage<D>::type>;
    e.planes[D] = G::planes;
    e.channels[D] = G::channels;
}

}  // namespace

void register_gather(cpu::ResamplingEntries& e) {
    fill_table<0>(e);
    fill_table<1>(e);
    fill_table<2>(e);
    fill_table<3>(e);
}

}  // namespace nk::NK_ISA
