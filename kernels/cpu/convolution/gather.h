// Windows of an image copied into the rows or columns that a product reads: the one thing that a convolution has and a
// matrix product has not.
#pragma once

#include "../simd/runs.h"
#include "entries.h"

namespace nk::NK_ISA {

#define NK_GATHER inline __attribute__((always_inline))

// Positions [q, q + n), counted over all images, cut where a row ends: returns the number of segments.
inline int cut_into_rows(const cpu::ConvSource& x, int64_t q, int64_t n, cpu::ConvSegment* to) {
    const int64_t width = x.axis[2].positions, height = x.axis[1].positions, all = x.positions();
    int64_t image = q / all, p = q % all;
    int count = 0;
    for (int64_t column = 0; column < n;) {
        const int64_t w = p % width;
        const int64_t length = width - w < n - column ? width - w : n - column;
        to[count++] = {int32_t(column),
                       int32_t(length),
                       {int32_t(p / width / height), int32_t(p / width % height), int32_t(w)},
                       image};
        column += length, p += length;
        if (p == all) p = 0, ++image;
    }
    return count;
}

// Offset of a pixel along the first two axes, or -1.
NK_GATHER int64_t plane_offset(const cpu::ConvSource& x, const cpu::ConvSegment& s, int64_t t0, int64_t t1) {
    const cpu::ConvAxis &a = x.axis[0], &b = x.axis[1];
    const int64_t i = a.at[t0 * a.positions + s.at[0]], j = b.at[t1 * b.positions + s.at[1]];
    return i < 0 || j < 0 ? -1 : s.image * x.image + i * a.stride + j * b.stride;
}

// to[c * taps + t][ld] for channels [c0, c1), a column for each position of the segments: some channels at a time,
// whose lines stay in the first cache from segment to segment.
template <class S>
void gather_columns(const cpu::ConvSource& x, const cpu::ConvSegment* segments, int count, int64_t c0, int64_t c1,
                    S* to, int64_t ld) {
    constexpr int64_t kChannels = 16;
    const cpu::ConvAxis& w = x.axis[2];
    const int64_t taps = x.taps(), step = w.step * w.stride;
    for (int64_t c = c0; c < c1; c += kChannels) {
        const int64_t channels = c1 - c < kChannels ? c1 - c : kChannels;
        const S* data = static_cast<const S*>(x.data) + c * x.channel;
        S* rows = to + (c - c0) * taps * ld;
        for (int64_t t = 0; t < taps; ++t, rows += ld) {
            const int64_t t2 = t % w.taps, t1 = t / w.taps % x.axis[1].taps, t0 = t / w.taps / x.axis[1].taps;
            const int32_t* at = w.at + t2 * w.positions;
            for (int i = 0; i < count; ++i) {
                const cpu::ConvSegment& s = segments[i];
                const int64_t plane = plane_offset(x, s, t0, t1), begin = s.at[2], n = s.length;
                int64_t lo = (w.first[t2] > begin ? w.first[t2] : begin) - begin;
                int64_t hi = (w.last[t2] < begin + n ? w.last[t2] : begin + n) - begin;
                if (plane < 0 || hi <= lo) lo = hi = 0;
                S* d = rows + s.column;
                const S* from = data + plane;
                const S* run = from + (lo < hi ? at[begin + lo] * w.stride : 0);
                if (plane < 0 || (step == 1 && w.zeros)) {
                    copy_windows(d, taps * ld, run - lo, x.channel, lo, hi, n, channels);
                    continue;
                }
                for (int64_t k = 0; k < channels; ++k, d += taps * ld, from += x.channel, run += x.channel) {
                    copy_run(d + lo, run, hi - lo, step);
                    for (int64_t p = 0; p < lo; ++p) d[p] = at[begin + p] < 0 ? S{} : from[at[begin + p] * w.stride];
                    for (int64_t p = hi; p < n; ++p) d[p] = at[begin + p] < 0 ? S{} : from[at[begin + p] * w.stride];
                }
            }
        }
    }
}

// Elements [k, end) of one position's row, tap by tap.
template <class S>
void gather_row(const cpu::ConvSource& x, int64_t plane, int64_t t2, int64_t position, int64_t c, int64_t n, S* to) {
    const cpu::ConvAxis& w = x.axis[2];
    for (int64_t done = 0; done < n; ++t2, c = 0) {
        const int64_t some = x.channels - c < n - done ? x.channels - c : n - done;
        const int64_t pixel = w.at[t2 * w.positions + position];
        if (plane < 0 || pixel < 0)
            clear_run(to + done, some);
        else
            copy_run(to + done, static_cast<const S*>(x.data) + plane + pixel * w.stride + c * x.channel, some,
                     x.channel);
        done += some;
    }
}

// to[position][ld] of k = (tap, channel), those in [k0, k1), and zeros behind them up to `clear` elements from k0.
template <class S>
void gather_rows(const cpu::ConvSource& x, const cpu::ConvSegment* segments, int count, int64_t k0, int64_t k1, S* to,
                 int64_t ld, int64_t clear) {
    const cpu::ConvAxis& w = x.axis[2];
    const int64_t channels = x.channels;
    const bool joins = w.joined && x.channel == 1 && w.stride == channels;
    for (int64_t k = k0; k < k1;) {
        const int64_t t = k / channels, c = k % channels;
        const int64_t t2 = t % w.taps, t1 = t / w.taps % x.axis[1].taps, t0 = t / w.taps / x.axis[1].taps;
        // a tap's channels, or those of all taps of a row where they follow each other
        const int64_t row_end = (t + (joins ? w.taps - t2 : 1)) * channels, end = row_end < k1 ? row_end : k1;
        const int64_t last_tap = (end - 1) / channels - t + t2, n = end - k;
        for (int i = 0; i < count; ++i) {
            const cpu::ConvSegment& s = segments[i];
            const int64_t plane = plane_offset(x, s, t0, t1), begin = s.at[2], stop = begin + s.length;
            // the positions whose taps all lie inside
            int64_t lo = w.first[t2] > w.first[last_tap] ? w.first[t2] : w.first[last_tap];
            int64_t hi = w.last[t2] < w.last[last_tap] ? w.last[t2] : w.last[last_tap];
            lo = lo > begin ? lo : begin, hi = hi < stop ? hi : stop;
            if (plane < 0 || hi <= lo || x.channel != 1) lo = hi = stop;
            S* const d = to + s.column * ld + (k - k0);
            for (int64_t p = begin; p < lo; ++p) gather_row(x, plane, t2, p, c, n, d + (p - begin) * ld);
            if (lo < hi)
                copy_windows(d + (lo - begin) * ld, ld,
                             static_cast<const S*>(x.data) + plane + w.at[t2 * w.positions + lo] * w.stride + c,
                             w.step * w.stride, 0, n, n, hi - lo);
            for (int64_t p = hi; p < stop; ++p) gather_row(x, plane, t2, p, c, n, d + (p - begin) * ld);
        }
        k = end;
    }
    if (k1 - k0 == clear) return;
    for (int i = 0; i < count; ++i)
        for (int64_t p = 0; p < segments[i].length; ++p)
            clear_run(to + (segments[i].column + p) * ld + (k1 - k0), clear - (k1 - k0));
}

}  // namespace nk::NK_ISA
