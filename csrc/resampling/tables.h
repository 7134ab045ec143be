// What each output is made of, listed on the host.
#pragma once

#include <vector>

#include "cpu/table.h"
#include "kernels/resampling.h"

namespace nk::resampling {

template <class S>
struct Table {
    std::vector<int64_t> start, source;
    std::vector<S> weight;

    // Of the outputs, or where it is transposed of the elements of the source: a term for each output that one is in,
    // in the order of the outputs.
    Table(const ResampleDim& d, bool transposed) {
        const int64_t size = transposed ? d.in : d.out;
        start.assign(static_cast<size_t>(size) + 1, 0);
        const auto each = [&](auto f) {
            for (int64_t o = 0; o < d.out; ++o) {
                const ResampleTaps<S> taps(d, o);
                for (int64_t k = 0; k < taps.count; ++k) f(o, resample_source(d, taps.first, k), taps, k);
            }
        };
        each([&](int64_t o, int64_t i, const ResampleTaps<S>&, int64_t) {
            ++start[static_cast<size_t>(transposed ? i : o) + 1];
        });
        for (size_t i = 0; i < static_cast<size_t>(size); ++i) start[i + 1] += start[i];
        std::vector<int64_t> next(start);
        source.resize(static_cast<size_t>(start.back()));
        weight.resize(source.size());
        each([&](int64_t o, int64_t i, const ResampleTaps<S>& taps, int64_t k) {
            const size_t at = static_cast<size_t>(next[static_cast<size_t>(transposed ? i : o)]++);
            source[at] = transposed ? o : i;
            weight[at] = taps.weight(k);
        });
    }

    cpu::ResampleAxis axis() const {
        return {static_cast<int64_t>(start.size()) - 1, start.data(), source.data(), weight.data()};
    }
    // terms of an output on average
    double mean() const { return static_cast<double>(source.size()) / static_cast<double>(start.size() - 1); }
};

}  // namespace nk::resampling
