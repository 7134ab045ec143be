// Depthwise convolutions and their data gradients: rows come into the ring, products are summed, rows go out.
#include "depthwise_ring.h"
#include "depthwise_sums.h"
#include "register.h"

namespace nk::NK_ISA {

namespace {

using cpu::DepthwisePack;
using cpu::DepthwisePart;
using cpu::DepthwiseShape;
using cpu::DepthwiseTask;
using cpu::DepthwiseTensor;

// Where the weights of the lanes of vector v lie for source s.
template <class S>
LaneChannels<S> weight_channels(const DepthwiseShape& t, const DepthwisePack& p, int64_t v, int64_t s) {
    LaneChannels<S> c(v * vec<S>::lanes, t.channels, 1, 1, 0, p.made);
    if (!p.image_made) {
        for (int64_t& o : c.offset) o += s * p.source;
    } else {
        for (int l = 0; l < vec<S>::lanes; ++l) {
            const int64_t channel = v * vec<S>::lanes + (l < c.n ? l : c.n - 1);
            c.offset[l] = (channel / t.per_group * t.sources + s) * p.source + channel % t.per_group * p.made;
        }
        c.together = false;
    }
    return c;
}

bool is_dense(const DepthwiseShape& t, const DepthwisePack& p) {
    return (p.axis[2] == 1 || t.taps[2] == 1) && (p.axis[1] == t.taps[2] || t.taps[1] == 1) &&
           (p.axis[0] == t.taps[1] * t.taps[2] || t.taps[0] == 1);
}

constexpr int64_t kTaps = 64;  // that are read together, on the stack

template <class T, class S>
void pack(const DepthwiseShape& t, const DepthwisePack& p, int64_t v0, int64_t v1) {
    constexpr int lanes = vec<S>::lanes;
    const int64_t taps = t.all_taps();
    const bool dense = is_dense(t, p) && taps <= kTaps;
    alignas(64) S block[kTaps * lanes];
    for (int64_t v = v0; v < v1; ++v)
        for (int64_t s = 0; s < t.sources; ++s) {
            const LaneChannels<S> c = weight_channels<S>(t, p, v, s);
            const T* from = static_cast<const T*>(p.data);
            S* to = static_cast<S*>(p.to) + (v * t.sources + s) * taps * lanes;
            if (dense) lanes_in(block, from, c, 1, taps);
            for (int64_t d = 0; d < t.taps[0]; ++d)
                for (int64_t h = 0; h < t.taps[1]; ++h)
                    for (int64_t w = 0; w < t.taps[2]; ++w, to += lanes) {
                        const int64_t k = t.columns.order[w];
                        if (dense)
                            store(to, load(block + ((d * t.taps[1] + h) * t.taps[2] + k) * lanes));
                        else
                            lanes_in(to, from + d * p.axis[0] + h * p.axis[1] + k * p.axis[2], c, p.axis[2], 1);
                    }
        }
}

template <class T, class S>
struct Maker {
    static constexpr int kLanes = vec<S>::lanes;
    const DepthwiseTask& t;
    const DepthwisePart& p;
    const DepthwiseShape& shape;
    Ring<S, T> ring;
    cpu::DepthwiseRead* reads;
    S *made, *other;
    LaneCache<S> made_channels, preact_channels, residual_channels;
    int64_t begin, columns;  // of the part: made columns

    Maker(const DepthwiseTask& task, const DepthwisePart& part)
        : t(task),
          p(part),
          shape(task.shape),
          ring(task.shape, part, task.source),
          reads(reinterpret_cast<cpu::DepthwiseRead*>(part.work + part.work_reads)),
          made(reinterpret_cast<S*>(part.work + part.work_made)),
          other(reinterpret_cast<S*>(part.work + part.work_other)) {
        const auto& c = shape.columns;
        begin = p.j0 * c.step;
        columns = (p.j1 * c.step < c.made ? p.j1 * c.step : c.made) - begin;
    }

    void run() {
        const int64_t height = shape.axis[1].made;
        ring.begin(p.image);
        for (int64_t r = p.r0; r < p.r1;) {
            const int64_t d = r / height, h = r % height;
            int64_t rows = p.band < p.r1 - r ? p.band : p.r1 - r;
            if (rows > height - h) rows = height - h;
            for (int32_t e = shape.axis[0].start[d]; e < shape.axis[0].start[d + 1]; ++e)
                ring.fill(shape.axis[0].at[e], h, h + rows);
            for (int64_t i = 0; i < rows; ++i) sum(d, h + i, made + i * columns * kLanes, rows * columns * kLanes);
            finish(d, h, rows);
            r += rows;
        }
    }

    // One row of all vectors, which lie `apart`.
    void sum(int64_t d, int64_t h, S* to, int64_t apart) {
        const auto &depth = shape.axis[0], &height = shape.axis[1];
        const auto& c = shape.columns;
        const int64_t taps = shape.all_taps();
        int64_t count = 0;
        for (int64_t s = 0; s < shape.sources; ++s)
            for (int32_t e = depth.start[d]; e < depth.start[d + 1]; ++e)
                for (int32_t f = height.start[h]; f < height.start[h + 1]; ++f) {
                    const int64_t tap = depth.tap[e] * shape.taps[1] + height.tap[f];
                    reads[count++] = {ring.at(s, depth.at[e], height.at[f]), (s * taps + tap * shape.taps[2]) * kLanes};
                }
        for (int64_t v = p.v0; v < p.v1; ++v, to += apart) {
            alignas(64) S bias[kLanes];
            if (t.bias != nullptr) {
                const LaneChannels<S> channels(v * kLanes, shape.channels, 1, 1, 0, t.bias_step);
                lanes_in(bias, static_cast<const T*>(t.bias), channels, 1, 1);
            }
            const S* x = ring.slots + (v - p.v0) * ring.places * kLanes;
            const S* w = static_cast<const S*>(t.weight) + v * shape.sources * taps * kLanes;
            for (int64_t i = 0; i < c.phase_count; ++i) {
                const cpu::DepthwisePhase& f = c.phases[i];
                const int64_t n = (columns - f.first + c.step - 1) / c.step;
                if (n <= 0) continue;
                lane_row(LaneRow<S>{reads, f.taps > 0 ? count : 0, x + f.from * kLanes, w + f.weight * kLanes,
                                    to + f.first * kLanes, c.step * kLanes, n, f.taps, c.stride, c.dilation,
                                    t.bias != nullptr ? bias : nullptr});
            }
            if (c.fold != nullptr) fold(to);
        }
    }

    void fold(S* row) const {
        const auto& c = shape.columns;
        for (int64_t i = 0; i < c.made; ++i) {
            if (i >= c.fold_before && i < c.fold_before + c.folded) continue;
            S* to = row + (c.fold_before + c.fold[i]) * kLanes;
            store(to, load(to) + load(row + i * kLanes));
        }
    }

    void finish(int64_t d, int64_t h, int64_t rows) {
        const int64_t all = rows * columns * kLanes;
        for (int64_t v = p.v0; v < p.v1; ++v) {
            S* from = made + (v - p.v0) * all;
            if (t.preact.data != nullptr) move<true>(t.preact, preact_channels, from, v, d, h, rows);
            if (t.activate != nullptr) t.activate(from, all, t.activation, t.p);
            if (t.residual.data != nullptr) {
                move<false>(t.residual, residual_channels, other, v, d, h, rows);
                for (int64_t i = 0; i < all; i += kLanes) store(from + i, load(from + i) + load(other + i));
            }
            move<true>(t.made, made_channels, from, v, d, h, rows);
        }
    }

    // Between rows of lanes and those of a tensor.
    template <bool Out>
    void move(const DepthwiseTensor& x, LaneCache<S>& cache, S* lanes, int64_t v, int64_t d, int64_t h, int64_t rows) {
        const auto& c = shape.columns;
        const LaneChannels<S>& channels = cache.of(shape, x, v);
        const bool folds = c.fold != nullptr;
        T* to = static_cast<T*>(x.data) + p.image * x.image + d * x.axis[0] + h * x.axis[1] + begin * x.axis[2];
        int64_t n = folds ? c.folded : columns;
        if (folds) lanes += c.fold_before * kLanes;
        if (!folds && x.axis[1] == n * x.axis[2]) n *= rows, rows = 1;
        for (; rows > 0; --rows, to += x.axis[1], lanes += columns * kLanes) {
            if constexpr (Out)
                lanes_out(to, channels, x.axis[2], lanes, n, ahead_in<T>(x, kLanes));
            else
                lanes_in(lanes, static_cast<const T*>(to), channels, x.axis[2], n);
        }
    }
};

template <class T, class S>
void run(const DepthwiseTask& t, const DepthwisePart& p) {
    Maker<T, S>(t, p).run();
}

template <class T>
void set_entries(cpu::DepthwiseEntries& e, DType dtype) {
    using S = typename compute<T>::type;
    const int d = static_cast<int>(dtype);
    e.lanes[d] = vec<S>::lanes;
    e.pack[d] = pack<T, S>;
    e.run[d] = run<T, S>;
}

}  // namespace

void register_depthwise(cpu::DepthwiseEntries& e) {
    set_entries<float>(e, DType::f32);
    set_entries<double>(e, DType::f64);
    set_entries<f16>(e, DType::f16);
    set_entries<bf16>(e, DType::bf16);
}

}  // namespace nk::NK_ISA
