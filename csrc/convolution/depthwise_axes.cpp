#include "convolution/depthwise_axes.h"

#include <algorithm>
#include <numeric>

namespace nk::convolution {

namespace {

// The pixel of n that a padded image holds at p, or -1 for a zero.
int32_t place(int64_t p, int64_t n, PaddingMode mode) {
    if (p >= 0 && p < n) return static_cast<int32_t>(p);
    switch (mode) {
        case PaddingMode::zeros:
            return -1;
        case PaddingMode::reflect:
            return static_cast<int32_t>(p < 0 ? -p : 2 * (n - 1) - p);
        case PaddingMode::replicate:
            return static_cast<int32_t>(p < 0 ? 0 : n - 1);
        case PaddingMode::circular:
            return static_cast<int32_t>(p < 0 ? p + n : p - n);
    }
    return -1;
}

// Pixels of the padded image that the result reads, at least those before and in it.
int64_t padded(const Geometry& g, int a) {
    const int64_t reach = (g.out[a] - 1) * g.stride[a] + (g.kernel[a] - 1) * g.dilation[a] + 1;
    return std::max(reach, g.pad[a] + g.in[a]);
}

}  // namespace

DepthwiseRows::DepthwiseRows(const Geometry& g, int a, bool image)
    : made_(image ? g.in[a] : g.out[a]), source_(image ? g.out[a] : g.in[a]) {
    const int64_t s = g.stride[a], d = g.dilation[a];
    std::vector<std::vector<int64_t>> holds;  // image rows as rows of the padded image, in their order
    if (image) {
        holds.resize(static_cast<size_t>(made_));
        for (int64_t p = 0; p < padded(g, a); ++p) {
            const int32_t i = place(p - g.pad[a], made_, g.mode);
            if (i >= 0) holds[static_cast<size_t>(i)].push_back(p);
        }
    }
    start_.push_back(0);
    for (int64_t i = 0; i < made_; ++i) {
        for (int64_t k = 0; k < g.kernel[a]; ++k) {
            const auto add = [&](int64_t at) {
                tap_.push_back(static_cast<int32_t>(k));
                at_.push_back(static_cast<int32_t>(at));
            };
            if (!image) {
                const int32_t at = place(i * s + k * d - g.pad[a], source_, g.mode);
                if (at >= 0) add(at);
            } else {
                for (const int64_t p : holds[static_cast<size_t>(i)]) {
                    const int64_t q = p - k * d;
                    if (q >= 0 && q % s == 0 && q / s < source_) add(q / s);
                }
            }
        }
        start_.push_back(static_cast<int32_t>(at_.size()));
    }
}

int64_t DepthwiseRows::most() const {
    int64_t most = 0;
    for (size_t i = 0; i + 1 < start_.size(); ++i) most = std::max<int64_t>(most, start_[i + 1] - start_[i]);
    return most;
}

cpu::DepthwiseAxis DepthwiseRows::shape(int64_t band) const {
    int64_t slots = 1;
    for (int64_t i = 0; i < made_; ++i) {
        const auto begin = at_.begin() + start_[static_cast<size_t>(i)];
        const auto end = at_.begin() + start_[static_cast<size_t>(std::min(made_, i + band))];
        if (begin == end) continue;
        const auto [least, most] = std::minmax_element(begin, end);
        slots = std::max<int64_t>(slots, *most - *least + 1);
    }
    return {made_, source_, slots, start_.data(), tap_.data(), at_.data()};
}

DepthwiseWidth::DepthwiseWidth(const Geometry& g, bool image) {
    constexpr int a = kSpatial - 1;
    const int64_t s = g.stride[a], d = g.dilation[a], taps = g.kernel[a];
    if (!image) {
        c_.made = g.out[a], c_.source = g.in[a];
        c_.stride = s, c_.dilation = d;
        order_.resize(static_cast<size_t>(taps));
        std::iota(order_.begin(), order_.end(), 0);
        phases_.push_back({0, static_cast<int32_t>(taps), 0, 0});
        c_.reach = (taps - 1) * d + 1;
        c_.before = g.pad[a];
    } else {
        const bool folds = g.mode != PaddingMode::zeros;
        const int64_t off = folds ? 0 : g.pad[a], shared = std::gcd(s, d);
        c_.made = folds ? padded(g, a) : g.in[a], c_.source = g.out[a];
        c_.step = s, c_.dilation = d / shared;
        int64_t least = INT64_MAX;
        std::vector<int64_t> from;
        for (int64_t first = 0; first < s; ++first) {
            cpu::DepthwisePhase f{static_cast<int32_t>(first), 0, static_cast<int32_t>(order_.size()), 0};
            from.push_back(INT64_MAX);
            for (int64_t k = taps - 1; k >= 0; --k) {
                const int64_t q = first + off - k * d;
                if (q % s != 0) continue;
                if (f.taps++ == 0) from.back() = q / s;
                order_.push_back(static_cast<int32_t>(k));
            }
            least = std::min(least, from.back());
            phases_.push_back(f);
        }
        c_.before = -least;
        for (size_t i = 0; i < phases_.size(); ++i) {
            cpu::DepthwisePhase& f = phases_[i];
            if (f.taps == 0) continue;
            f.from = static_cast<int32_t>(from[i] - least);
            c_.reach = std::max(c_.reach, f.from + (f.taps - 1) * c_.dilation + 1);
        }
        if (folds) {
            for (int64_t i = 0; i < c_.made; ++i) fold_.push_back(place(i - g.pad[a], g.in[a], g.mode));
            c_.fold_before = g.pad[a], c_.folded = g.in[a];
        }
    }
    const int64_t places = (indices() - 1) * c_.stride + c_.reach;
    const PaddingMode mode = image ? PaddingMode::zeros : g.mode;
    for (int64_t p = 0; p < places; ++p) at_.push_back(place(p - c_.before, c_.source, mode));
    c_.inner[0] = std::clamp<int64_t>(c_.before, 0, places);
    c_.inner[1] = std::clamp<int64_t>(c_.before + c_.source, c_.inner[0], places);
}

cpu::DepthwiseColumns DepthwiseWidth::shape() const {
    cpu::DepthwiseColumns c = c_;
    c.at = at_.data(), c.order = order_.data();
    c.phases = phases_.data(), c.phase_count = static_cast<int64_t>(phases_.size());
    c.fold = fold_.empty() ? nullptr : fold_.data();
    return c;
}

}  // namespace nk::convolution
