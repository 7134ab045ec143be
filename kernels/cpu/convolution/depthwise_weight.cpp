// The weight's gradient of depthwise convolutions: products of rows of the result's gradient and of the image, summed
// in registers over a band of rows, then in memory.
#include "depthwise_ring.h"
#include "depthwise_sums.h"
#include "register.h"

namespace nk::NK_ISA {

namespace {

using cpu::DepthwisePack;
using cpu::DepthwisePart;
using cpu::DepthwiseShape;
using cpu::DepthwiseWeightTask;

template <class T, class S>
void weight(const DepthwiseWeightTask& t, const DepthwisePart& p, void* sums) {
    constexpr int lanes = vec<S>::lanes;
    const DepthwiseShape& shape = t.shape;
    const auto &depth = shape.axis[0], &height = shape.axis[1];
    const auto& c = shape.columns;
    Ring<S, T> ring(shape, p, t.source);
    auto* reads = reinterpret_cast<cpu::DepthwiseRead*>(p.work + p.work_reads);
    S* gs = reinterpret_cast<S*>(p.work + p.work_made);
    S* total = static_cast<S*>(sums);
    const int64_t taps = shape.all_taps(), vectors = p.v1 - p.v0, columns = p.j1 - p.j0;
    for (int64_t i = 0; i < vectors * shape.sources * taps * lanes; ++i) total[i] = 0;
    LaneCache<S> made_channels;
    int64_t last = -1;
    for (int64_t r = p.r0; r < p.r1;) {
        const int64_t n = r / (depth.made * height.made), d = r / height.made % depth.made, h = r % height.made;
        int64_t rows = p.band < p.r1 - r ? p.band : p.r1 - r;
        if (rows > height.made - h) rows = height.made - h;
        r += rows;
        if (n != last) ring.begin(n);
        last = n;
        for (int64_t v = p.v0; v < p.v1; ++v) {
            const LaneChannels<S>& channels = made_channels.of(shape, t.made, v);
            const T* from = static_cast<const T*>(t.made.data) + n * t.made.image + d * t.made.axis[0] +
                            h * t.made.axis[1] + p.j0 * t.made.axis[2];
            S* to = gs + (v - p.v0) * rows * columns * lanes;
            if (t.made.axis[1] == columns * t.made.axis[2]) {
                lanes_in(to, from, channels, t.made.axis[2], columns * rows, ahead_in<T>(t.made, lanes));
            } else {
                for (int64_t i = 0; i < rows; ++i)
                    lanes_in(to + i * columns * lanes, from + i * t.made.axis[1], channels, t.made.axis[2], columns,
                             ahead_in<T>(t.made, lanes));
            }
        }
        for (int32_t e = depth.start[d]; e < depth.start[d + 1]; ++e) ring.fill(depth.at[e], h, h + rows);
        for (int64_t s = 0; s < shape.sources; ++s)
            for (int32_t e = depth.start[d]; e < depth.start[d + 1]; ++e)
                for (int64_t k = 0; k < shape.taps[1]; ++k) {
                    int64_t count = 0;
                    for (int64_t i = 0; i < rows; ++i)
                        for (int32_t f = height.start[h + i]; f < height.start[h + i + 1]; ++f)
                            if (height.tap[f] == k)
                                reads[count++] = {ring.at(s, depth.at[e], height.at[f]), i * columns * lanes};
                    if (count == 0) continue;
                    const int64_t tap = (depth.tap[e] * shape.taps[1] + k) * shape.taps[2];
                    for (int64_t v = 0; v < vectors; ++v)
                        lane_taps(LaneTaps<S>{reads, count, ring.slots + (v * ring.places + c.phases[0].from) * lanes,
                                              gs + v * rows * columns * lanes,
                                              total + ((v * shape.sources + s) * taps + tap) * lanes, columns,
                                              shape.taps[2], c.stride, c.dilation});
                }
    }
}

template <class T, class S>
void finish(const DepthwiseShape& t, const DepthwisePack& p, int64_t v0, int64_t v1, void* sums, int64_t parts,
            int64_t apart) {
    constexpr int lanes = vec<S>::lanes;
    const int64_t taps = t.all_taps();
    const bool dense = (p.axis[2] == 1 || t.taps[2] == 1) && (p.axis[1] == t.taps[2] || t.taps[1] == 1) &&
                       (p.axis[0] == t.taps[1] * t.taps[2] || t.taps[0] == 1);
    for (int64_t v = v0; v < v1; ++v)
        for (int64_t s = 0; s < t.sources; ++s) {
            S* total = static_cast<S*>(sums) + (v * t.sources + s) * taps * lanes;
            for (int64_t k = 0; k < taps * lanes; k += lanes) {
                vec<S> sum = load(total + k);
                for (int64_t i = 1; i < parts; ++i) sum = sum + load(total + i * apart + k);
                store(total + k, sum);
            }
            const LaneChannels<S> c(v * lanes, t.channels, 1, 1, 0, p.made);
            T* to = static_cast<T*>(p.to) + s * p.source;
            if (dense) {
                lanes_out(to, c, 1, total, taps);
                continue;
            }
            for (int64_t d = 0; d < t.taps[0]; ++d)
                for (int64_t h = 0; h < t.taps[1]; ++h)
                    lanes_out(to + d * p.axis[0] + h * p.axis[1], c, p.axis[2],
                              total + (d * t.taps[1] + h) * t.taps[2] * lanes, t.taps[2]);
        }
}

template <class T>
void set_entries(cpu::DepthwiseEntries& e, DType dtype) {
    using S = typename compute<T>::type;
    const int d = static_cast<int>(dtype);
    e.weight[d] = weight<T, S>;
    e.weight_finish[d] = finish<T, S>;
}

}  // namespace

void register_depthwise_weight(cpu::DepthwiseEntries& e) {
    set_entries<float>(e, DType::f32);
    set_entries<double>(e, DType::f64);
    set_entries<f16>(e, DType::f16);
    set_entries<bf16>(e, DType::bf16);
}

}  // namespace nk::NK_ISA
