// Where the elements of a padded dim come from, and where they go to: the same on the host, on the CPU and in CUDA.
//
// A dim of n elements is padded by `lo` in front and `hi` behind; negative numbers crop. Element o of the result is
// element pad_source(o) of the input, or filler where there is none. The gradient of element i is the sum of the
// results' that come from it: at most three runs of places.
#pragma once

#include <stdint.h>

#ifdef __CUDACC__
#define NK_PAD_FN __host__ __device__ __forceinline__
#else
#define NK_PAD_FN inline
#endif

namespace nk {

enum class PadMode : int { constant = 0, reflect = 1, replicate = 2, circular = 3 };

// What a circular dim repeats: the elements that are not cut off.
NK_PAD_FN int64_t pad_period(int64_t n, int64_t lo, int64_t size) {
    const int64_t hi = size - n - lo;
    return n + (lo < 0 ? lo : 0) + (hi < 0 ? hi : 0);
}

// The element that is in place o of the result; -1: the filler.
NK_PAD_FN int64_t pad_source(PadMode mode, int64_t o, int64_t n, int64_t lo, int64_t size) {
    const int64_t i = o - lo;
    if (i >= 0 && i < n) return i;
    if (mode == PadMode::reflect) return i < 0 ? -i : 2 * (n - 1) - i;
    if (mode == PadMode::replicate) return i < 0 ? 0 : n - 1;
    if (mode == PadMode::circular) return i < 0 ? i + pad_period(n, lo, size) : i - pad_period(n, lo, size);
    return -1;
}

// The places of the result that one element of the input goes to, in ascending order within each run.
struct PadPlaces {
    int64_t first[3] = {0, 0, 0};
    int64_t count[3] = {0, 0, 0};

    NK_PAD_FN int64_t total() const { return count[0] + count[1] + count[2]; }
    NK_PAD_FN int64_t operator[](int64_t k) const {
        if (k < count[0]) return first[0] + k;
        k -= count[0];
        return k < count[1] ? first[1] + k : first[2] + k - count[1];
    }
};

// Places begin .. end - 1, as far as the result has them.
NK_PAD_FN void pad_run(PadPlaces& p, int run, int64_t begin, int64_t end, int64_t size) {
    begin = begin < 0 ? 0 : begin;
    end = end > size ? size : end;
    p.first[run] = begin;
    p.count[run] = end > begin ? end - begin : 0;
}

// Of element i; the result has `size` elements. Run 0 is the element itself, 1 lies in the padding in front and 2 in
// that behind.
NK_PAD_FN PadPlaces pad_places(PadMode mode, int64_t i, int64_t n, int64_t lo, int64_t size) {
    PadPlaces p;
    pad_run(p, 0, i + lo, i + lo + 1, size);
    if (mode == PadMode::reflect) {
        if (i > 0 && i <= lo) pad_run(p, 1, lo - i, lo - i + 1, size);
        const int64_t behind = lo + 2 * (n - 1) - i;
        if (i < n - 1) pad_run(p, 2, behind, behind + 1, size);
    } else if (mode == PadMode::replicate) {
        if (i == 0) pad_run(p, 1, 0, lo, size);
        if (i == n - 1) pad_run(p, 2, lo + n, size, size);
    } else if (mode == PadMode::circular) {
        const int64_t begin = lo < 0 ? -lo : 0, period = pad_period(n, lo, size);
        if (i < begin || i >= begin + period) return p;
        pad_run(p, 1, i + lo - period, i + lo - period + 1, size);
        pad_run(p, 2, i + lo + period, i + lo + period + 1, size);
    }
    return p;
}

}  // namespace nk
