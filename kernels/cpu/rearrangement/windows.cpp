// A channel's pixels under a sliding window, a row of columns for each place in the window, and the sums back.
#include "../elementwise/storage.h"
#include "move.h"

namespace nk::NK_ISA {

namespace {

// The places o of 0 .. places - 1 for which 0 <= o * stride + at < size.
struct Places {
    int64_t begin, end;
};

NK_HD Places places_of(int64_t places, int64_t at, int64_t stride, int64_t size) {
    const int64_t begin = at >= 0 ? 0 : min64(places, (-at + stride - 1) / stride);
    const int64_t room = size - at;  // pixels from the first place on
    const int64_t end = room <= 0 ? 0 : min64(places, (room + stride - 1) / stride);
    return {begin, end < begin ? begin : end};
}

NK_HD int64_t at(const cpu::WindowPlane& a, int d, int64_t k) { return k * a.dilation[d] - a.padding[d]; }

// ---- unfold ----

// The columns of one place in the window: rows of pixels, each where it lies under the window.
template <class T>
NK_HD void unfold_rows(const cpu::WindowPlane& a, T* to, int64_t y, int64_t x) {
    const Places rows = places_of(a.places[0], y, a.stride[0], a.image[0]);
    const Places columns = places_of(a.places[1], x, a.stride[1], a.image[1]);
    const int64_t width = a.places[1], n = columns.end - columns.begin;
    const T* const from = static_cast<const T*>(a.from);
    fill(to, T(0), rows.begin * width);
    for (int64_t o = rows.begin; o < rows.end; ++o) {
        T* const row = to + o * width;
        const T* const pixels = from + (o * a.stride[0] + y) * a.apart + columns.begin * a.stride[1] + x;
        fill(row, T(0), columns.begin);
        if (a.stride[1] == 1)
            move_elements(row + columns.begin, pixels, n);
        else
            for (int64_t i = 0; i < n; ++i) row[columns.begin + i] = pixels[i * a.stride[1]];
        fill(row + columns.end, T(0), width - columns.end);
    }
    fill(to + rows.end * width, T(0), (a.places[0] - rows.end) * width);
}

// Where the columns have the width of the image they are the image moved by some elements: one copy, and zeros over
// what has come round the edge.
template <class T>
NK_HD void unfold_moved(const cpu::WindowPlane& a, T* to, int64_t y, int64_t x) {
    const Places rows = places_of(a.places[0], y, 1, a.image[0]);
    const Places columns = places_of(a.places[1], x, 1, a.image[1]);
    const int64_t width = a.places[1];
    if (rows.begin == rows.end || columns.begin == columns.end) return fill(to, T(0), a.places[0] * width);
    const int64_t begin = rows.begin * width + columns.begin, end = (rows.end - 1) * width + columns.end;
    fill(to, T(0), begin);
    move_elements(to + begin, static_cast<const T*>(a.from) + begin + y * width + x, end - begin);
    fill(to + end, T(0), a.places[0] * width - end);
    const int64_t around = width - columns.end + columns.begin;  // from a row's last column to the next one's first
    for (int64_t o = rows.begin + 1; o < rows.end; ++o)
        for (int64_t i = 0; i < around; ++i) to[(o - 1) * width + columns.end + i] = T(0);
}

template <class T>
void unfold(const cpu::WindowPlane& a) {
    const bool moved = a.stride[0] == 1 && a.stride[1] == 1 && a.places[1] == a.image[1] && a.apart == a.image[1];
    T* to = static_cast<T*>(a.to);
    for (int64_t kh = 0; kh < a.kernel[0]; ++kh)
        for (int64_t kw = 0; kw < a.kernel[1]; ++kw, to += a.places[0] * a.places[1]) {
            if (moved)
                unfold_moved(a, to, at(a, 0, kh), at(a, 1, kw));
            else
                unfold_rows(a, to, at(a, 0, kh), at(a, 1, kw));
        }
}

// ---- fold ----

template <class T>
struct Fold {
    using S = scalar_for<T>;
    using V = compute_vec<T>;
    using R = Row<T>;
    static constexpr int L = V::lanes;

    // What row h of the image and place kh in the window have in common: the row of columns over it, or null.
    static NK_HD const T* columns_over(const cpu::WindowPlane& a, int64_t h, int64_t kh) {
        const int64_t down = h - at(a, 0, kh);
        if (down < 0 || down % a.stride[0] != 0 || down / a.stride[0] >= a.places[0]) return nullptr;
        return static_cast<const T*>(a.from) + kh * a.kernel[1] * a.apart + down / a.stride[0] * a.places[1];
    }

    // Pixels w .. w + count - 1 of row h.
    static NK_HD V some(const cpu::WindowPlane& a, int64_t h, int64_t w, int count) {
        V sum(S(0));
        for (int64_t kh = 0; kh < a.kernel[0]; ++kh) {
            const T* const row = columns_over(a, h, kh);
            if (row == nullptr) continue;
            for (int64_t kw = 0; kw < a.kernel[1]; ++kw) {
                const int64_t o = w - at(a, 1, kw);
                const T* const columns = row + kw * a.apart + o;
                if (o >= 0 && o + count <= a.places[1]) {
                    sum = sum + R::read_some(columns, count);
                } else {
                    S part[L];
                    for (int i = 0; i < L; ++i)
                        part[i] = i < count && o + i >= 0 && o + i < a.places[1] ? to_number(columns[i]) : S(0);
                    sum = sum + load(part);
                }
            }
        }
        return sum;
    }

    static NK_HD S one(const cpu::WindowPlane& a, int64_t h, int64_t w) {
        S sum = 0;
        for (int64_t kh = 0; kh < a.kernel[0]; ++kh) {
            const T* const row = columns_over(a, h, kh);
            if (row == nullptr) continue;
            for (int64_t kw = 0; kw < a.kernel[1]; ++kw) {
                const int64_t along = w - at(a, 1, kw);
                if (along < 0 || along % a.stride[1] != 0 || along / a.stride[1] >= a.places[1]) continue;
                sum += to_number(row[kw * a.apart + along / a.stride[1]]);
            }
        }
        return sum;
    }

    static void run(const cpu::WindowPlane& a) {
        for (int64_t h = 0; h < a.image[0]; ++h) {
            T* const to = static_cast<T*>(a.to) + h * a.image[1];
            for (int64_t w = 0; w < a.image[1];) {
                if (a.stride[1] == 1) {
                    const int count = static_cast<int>(min64(L, a.image[1] - w));
                    R::write_some(to + w, some(a, h, w, count), count);
                    w += L;
                } else {
                    put_number(to[w], one(a, h, w));
                    ++w;
                }
            }
        }
    }
};

}  // namespace

void register_windows(cpu::RearrangementEntries& e) {
    e.unfold[0] = unfold<uint16_t>;
    e.unfold[1] = unfold<uint32_t>;
    e.unfold[2] = unfold<uint64_t>;
    e.fold[0] = Fold<storage<0>::type>::run;
    e.fold[1] = Fold<storage<1>::type>::run;
    e.fold[2] = Fold<storage<2>::type>::run;
    e.fold[3] = Fold<storage<3>::type>::run;
}

}  // namespace nk::NK_ISA
