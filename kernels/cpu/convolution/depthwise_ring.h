// The rows of a source that a part's rows read, as accumulators [vector][column][lane], in a ring of slots.
#pragma once

#include "depthwise_lanes.h"

namespace nk::NK_ISA {

template <class S, class T>
struct Ring {
    static constexpr int kLanes = vec<S>::lanes;
    const cpu::DepthwiseShape& shape;
    const cpu::DepthwisePart& part;
    const cpu::DepthwiseTensor& source;
    S* slots;
    int32_t* tags;
    const T* image = nullptr;
    LaneCache<S> cache;
    int64_t places, first, slot;  // of a row; the first one; accumulators of a slot

    Ring(const cpu::DepthwiseShape& sh, const cpu::DepthwisePart& p, const cpu::DepthwiseTensor& src)
        : shape(sh),
          part(p),
          source(src),
          slots(reinterpret_cast<S*>(p.work)),
          tags(reinterpret_cast<int32_t*>(p.work + p.work_tags)) {
        const auto& c = sh.columns;
        places = (p.j1 - p.j0 - 1) * c.stride + c.reach;
        first = p.j0 * c.stride;
        slot = (p.v1 - p.v0) * places * kLanes;
    }

    void begin(int64_t n) {
        image = static_cast<const T*>(source.data) + n * source.image;
        const int64_t count = shape.sources * shape.axis[0].slots * shape.axis[1].slots;
        for (int64_t i = 0; i < count; ++i) tags[i] = -1;
    }

    int64_t index(int64_t s, int64_t d, int64_t h) const {
        return (s * shape.axis[0].slots + d % shape.axis[0].slots) * shape.axis[1].slots + h % shape.axis[1].slots;
    }
    int64_t at(int64_t s, int64_t d, int64_t h) const { return index(s, d, h) * slot; }

    // What made rows [h0, h1) read in depth d.
    void fill(int64_t d, int64_t h0, int64_t h1) {
        const auto& a = shape.axis[1];
        const int64_t begin = a.start[h0], end = a.start[h1];
        if (begin == end) return;
        int32_t least = a.at[begin], most = least;
        for (int64_t e = begin; e < end; ++e) {
            if (a.at[e] < least) least = a.at[e];
            if (a.at[e] > most) most = a.at[e];
        }
        for (int64_t s = 0; s < shape.sources; ++s)
            for (int64_t h = least; h <= most;) {
                int64_t n = 0;  // rows that are missing, and their slots in a row
                const int64_t i = index(s, d, h), room = a.slots - h % a.slots;
                while (n < room && h + n <= most && tags[i + n] != static_cast<int32_t>(d * a.source + h + n)) {
                    tags[i + n] = static_cast<int32_t>(d * a.source + h + n);
                    ++n;
                }
                if (n > 0) read(s, d, h, n);
                h += n > 0 ? n : 1;
            }
    }

  private:
    void read(int64_t s, int64_t d, int64_t h, int64_t rows) {
        const auto& c = shape.columns;
        const int64_t begin = c.inner[0] > first ? c.inner[0] : first;
        const int64_t end = c.inner[1] < first + places ? c.inner[1] : first + places;
        const int64_t n = end > begin ? end - begin : 0, step = source.axis[2], down = source.axis[1];
        const bool dense = rows > 1 && step == 1 && down == n && n == c.source;
        for (int64_t v = part.v0; v < part.v1; ++v) {
            const LaneChannels<S>& channels = cache.of(shape, source, v, s);
            const T* from = image + d * source.axis[0] + h * down;
            S* to = slots + at(s, d, h) + (v - part.v0) * places * kLanes;
            if (n > 0 && dense && !channels.together)
                transpose_in(to + (begin - first) * kLanes, n, slot, from, channels, n * rows,
                             ahead_in<T>(source, kLanes));
            for (int64_t r = 0; r < rows; ++r, to += slot, from += down) {
                if (n > 0 && (!dense || channels.together))
                    lanes_in(to + (begin - first) * kLanes, from + (begin - c.before) * step, channels, step, n,
                             ahead_in<T>(source, kLanes));
                pad(to, from, channels, first, n > 0 ? begin : first + places);
                if (n > 0) pad(to, from, channels, end, first + places);
            }
        }
    }
    void pad(S* to, const T* from, const LaneChannels<S>& channels, int64_t begin, int64_t end) const {
        for (int64_t p = begin; p < end; ++p) {
            S* place = to + (p - first) * kLanes;
            const int64_t column = shape.columns.at[p];
            if (column < 0)
                store(place, vec<S>(S(0)));
            else
                lanes_in(place, from + column * source.axis[2], channels, source.axis[2], 1);
        }
    }
};

}  // namespace nk::NK_ISA
