// Shuffles on the CPU: strided copies of one view to another. Which way they go depends on the dims that are contiguous
// on either side.
#include "cpu/strided_copy.h"
#include "rearrangement/run_cpu.h"
#include "tensor/index_space.h"

namespace nk::rearrangement {

namespace {

// What a kernel does at once: dims of the index space that it walks through, and a small side's offsets.
struct Way {
    enum Kind { rows, interleave, deinterleave, blocks } kind = blocks;
    bool within[kMaxDims] = {};  // the dims that the kernel walks through
    int along = 0;               // the long side
    int64_t small = 1, offset[cpu::kMostSmall];
};

// The offsets of the small dims in tensor t, in the order of `dims`.
void set_offsets(const IndexSpace& s, const int* dims, int count, int t, Way& w) {
    for (int64_t j = 0; j < w.small; ++j) {
        int64_t rest = j, at = 0;
        for (int k = 0; k < count; ++k) {
            at += rest % s.size[dims[k]] * s.stride[t][dims[k]];
            rest /= s.size[dims[k]];
        }
        w.offset[j] = at;
    }
}

// Dims that lie densely one inside the other in tensor t, from its innermost on, up to the innermost of the other one,
// which is `last`: a matrix with a short side.
bool find_small(const IndexSpace& s, int t, int last, Way& w) {
    int dims[kMaxDims], count = 0;
    int64_t step = 1;
    for (;;) {
        int next = -1;
        for (int d = 0; d < s.ndim; ++d)
            if (s.stride[t][d] == step && !w.within[d]) next = d;
        if (next < 0) return false;
        w.within[next] = true;
        if (next == last) break;
        dims[count++] = next;
        step *= s.size[next];
        if (step > cpu::kMostSmall) return false;
    }
    if (count == 0) return false;
    w.small = step, w.along = last;
    set_offsets(s, dims, count, 1 - t, w);
    return true;
}

Way way_of(const IndexSpace& s) {
    int to = -1, from = -1;  // the innermost dims
    for (int d = 0; d < s.ndim; ++d) {
        if (s.stride[0][d] == 1) to = d;
        if (s.stride[1][d] == 1) from = d;
    }
    Way w;
    if (to >= 0 && to == from) {
        w.kind = Way::rows, w.along = to, w.within[to] = true;
        return w;
    }
    if (to >= 0 && from >= 0) {
        Way into, apart;
        const bool interleaves = find_small(s, 0, from, into), deinterleaves = find_small(s, 1, to, apart);
        into.kind = Way::interleave, apart.kind = Way::deinterleave;
        if (interleaves && (!deinterleaves || s.size[from] >= s.size[to])) return into;
        if (deinterleaves) return apart;
    }
    w.along = 0;
    w.within[0] = true;
    return w;
}

constexpr const char* kNames[] = {"copy_rows", "interleave", "deinterleave", "copy_blocks"};

// Of the dims outside of what a kernel walks through: which becomes its rows, the first long one or the longest.
int rows_of(const IndexSpace& s, const Way& w) {
    constexpr int64_t kLong = 8, kLongRow = 64;
    int best = -1;
    for (int d = 0; d < s.ndim; ++d) {
        if (w.within[d]) continue;
        if (w.kind == Way::blocks && s.stride[1][d] == 1) return d;        // contiguous there
        if (w.kind == Way::rows && s.size[w.along] >= kLongRow) return d;  // in the order of the output
        if (best < 0 || (s.size[best] < kLong && s.size[d] > s.size[best])) best = d;
    }
    return best;
}

}  // namespace

void run_cpu(const Copy& p) {
    const IndexSpace s = coalesce_all(p.out, p.in);
    const Way w = way_of(s);
    const int rows_dim = rows_of(s, w), size = size_of(p.out.dtype), index = index_of_size(p.out.dtype);
    const int64_t count = rows_dim < 0 ? 1 : s.size[rows_dim], n = s.size[w.along];
    const int64_t to_apart = rows_dim < 0 ? 0 : s.stride[0][rows_dim];
    const int64_t from_apart = rows_dim < 0 ? 0 : s.stride[1][rows_dim];
    const int64_t planes = s.numel() / (count * n * w.small);
    const auto& table = cpu::table().rearrangement;
    const auto offsets = [&](int64_t plane) {
        std::pair<int64_t, int64_t> at{0, 0};
        for (int d = 0; d < s.ndim; ++d) {
            if (w.within[d] || d == rows_dim) continue;
            at.first += plane % s.size[d] * s.stride[0][d];
            at.second += plane % s.size[d] * s.stride[1][d];
            plane /= s.size[d];
        }
        return at;
    };
    const double cost = w.kind == Way::blocks ? 2 * kCostPerByte : kCostPerByte;
    share_out(p.op, kNames[w.kind], p.out, planes * count, cost, [&](int64_t first, int64_t last) {
        each_plane(first, last, count, [&](int64_t plane, int64_t begin, int64_t end) {
            const auto [to, from] = offsets(plane);
            char* const out = at(p.out, to + begin * to_apart);
            char* const in = at(p.in, from + begin * from_apart);
            const int64_t rows = end - begin;
            const int small = static_cast<int>(w.small);
            if (w.kind == Way::rows)
                table.copy_rows[index]({out, in, n, rows, to_apart, from_apart});
            else if (w.kind == Way::interleave)
                table.interleave[index]({out, in, n, rows, to_apart, from_apart, w.offset, small});
            else if (w.kind == Way::deinterleave)
                table.deinterleave[index]({out, in, n, rows, to_apart, from_apart, w.offset, small});
            else
                cpu::copy({out, s.stride[0][w.along], to_apart}, {in, s.stride[1][w.along], from_apart}, rows, n, size);
        });
    });
}

}  // namespace nk::rearrangement
