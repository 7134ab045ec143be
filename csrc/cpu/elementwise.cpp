#include "cpu/elementwise.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "call/run.h"
#include "cpu/cpuid.h"
#include "cpu/repeated_operand.h"
#include "cpu/strided_copy.h"
#include "cpu/table.h"
#include "cpu/threads.h"
#include "plan/stores_cpu.h"
#include "plan/threads_cpu.h"
#include "tensor/check.h"
#include "tensor/index_space.h"

namespace nk::cpu {

namespace {

constexpr int kApart = 192;        // bytes, so that blocks do not lie 4 KiB apart, where loads wait for stores
constexpr int kBlock = 512;        // elements that pass through the stack at a time
constexpr int64_t kLongRow = 64;   // shorter rows that must be gathered are, several at a time
constexpr int64_t kRowOfOne = 16;  // rows with one value of an input each are not worth a buffer from here on
constexpr int64_t kOwnRow = 1024;  // from so long rows on an input that repeats is read where it lies
constexpr int64_t kAheadFrom = int64_t{256} << 10;  // size of an input from which it is fetched ahead
constexpr int64_t kAhead = 4096;                    // bytes, so that the next page is looked up in time

bool is_one_value(const TensorView& t) {
    for (int d = 0; d < t.ndim; ++d)
        if (t.stride[d] != 0 && t.shape[d] != 1) return false;
    return true;
}

// A block of one value for each input that needs it.
struct alignas(64) Repeated {
    char bytes[kMostInputs][kRepeat * 8];
};

// The share [begin, begin + n) of a contiguous run, whose operands start at r's.
Run part_of(const Run& r, const Elementwise& e, int64_t begin, int64_t n, int size) {
    Run part = r;
    part.n = n;
    if (r.bits != nullptr) part.bits = r.bits + begin / 8;
    for (int t = 0; t < e.outs; ++t) part.out[t] = static_cast<char*>(r.out[t]) + begin * size;
    for (int j = 0; j < e.ins; ++j) part.in[j] = static_cast<const char*>(r.in[j]) + begin * size * r.step[j];
    return part;
}

bool goes_past(const Elementwise& e) { return plan::goes_past(e.tensor, e.outs, e.ins, last_level_cache()); }

Run start(const Elementwise& e, int64_t n, int64_t bytes) {
    Run r;
    r.n = n;
    r.ahead = bytes >= kAheadFrom ? kAhead : 0;
    r.past = bytes >= kAheadFrom && goes_past(e);
    r.p[0] = e.p[0];
    r.p[1] = e.p[1];
    r.bits = e.bits;
    return r;
}

// Streaming stores need aligned outputs: what lies before the first aligned element is stored the usual way.
void run_part(Run r, const Elementwise& e, int size) {
    const auto place = [](const void* p) { return static_cast<int64_t>(reinterpret_cast<uintptr_t>(p) % 64); };
    if (r.past && place(r.out[0]) != 0 && r.bits == nullptr) {  // bits go with steps of 64 elements
        r.past = false;
        const int64_t head = std::min(r.n, (64 - place(r.out[0])) / size);
        e.kernel(part_of(r, e, 0, head, size));
        r = part_of(r, e, head, r.n - head, size);
        r.past = true;
    }
    for (int t = 0; t < e.outs; ++t) r.past = r.past && place(r.out[t]) == 0;
    if (r.n > 0) e.kernel(r);
}

void drain(const Run& r) {
    if (r.past) cpu::drain_stores();
}

// Where a walk through the index space stands: coordinates, and each operand's offset in elements.
struct Position {
    int64_t index[kMaxDims];
    int64_t offset[kMaxOperands];

    Position(const IndexSpace& s, int64_t linear) {
        for (int t = 0; t < s.tensors; ++t) offset[t] = 0;
        for (int d = 0; d < s.ndim; ++d) {
            index[d] = linear % s.size[d];
            linear /= s.size[d];
            for (int t = 0; t < s.tensors; ++t) offset[t] += index[d] * s.stride[t][d];
        }
    }
    // Whole rows from here on, up to the end of dim 1 and within the next n elements; 1 where a part of a row is next.
    int64_t rows(const IndexSpace& s, int64_t n) const {
        if (s.ndim < 2 || index[0] != 0 || n < s.size[0]) return 1;
        return std::min(s.size[1] - index[1], n / s.size[0]);
    }
    // Over n rows of dim 1 without passing its end.
    void skip_rows(const IndexSpace& s, int64_t n) {
        if (n == 0) return;
        index[1] += n;
        for (int t = 0; t < s.tensors; ++t) offset[t] += n * s.stride[t][1];
    }
    // n must not go beyond the row.
    void advance(const IndexSpace& s, int64_t n) {
        index[0] += n;
        for (int t = 0; t < s.tensors; ++t) offset[t] += n * s.stride[t][0];
        for (int d = 0; d + 1 < s.ndim && index[d] == s.size[d]; ++d) {
            index[d] = 0;
            ++index[d + 1];
            for (int t = 0; t < s.tensors; ++t) offset[t] += s.stride[t][d + 1] - s.size[d] * s.stride[t][d];
        }
    }
};

enum class Access { as_is, one_value, gathered };

struct Strided {
    const Elementwise& e;
    const IndexSpace& s;
    int size;

    char* address(int t, int64_t offset) const { return static_cast<char*>(e.tensor[t]->data) + offset * size; }

    // Long rows: an operand is used where it lies if its row is contiguous, repeated if its row is one value.
    void rows(int64_t begin, int64_t end) const {
        Access access[kMaxOperands];
        bool gathers = false, past = true, as_is = true;
        for (int t = 0; t < e.operands(); ++t) {
            const int64_t stride = s.stride[t][0];
            access[t] = stride == 1 ? Access::as_is : stride == 0 && t >= e.outs ? Access::one_value : Access::gathered;
            gathers = gathers || access[t] == Access::gathered;
            as_is = as_is && access[t] == Access::as_is;
            if (t < e.outs && access[t] == Access::gathered) past = false;
        }
        alignas(64) char block[kMaxOperands][kBlock * 8 + kApart];
        Run r = start(e, 0, s.numel() * size);
        r.past = r.past && past;
        // each row has its own value of the last input: the kernel goes through them by itself
        const bool together = e.reads_one && e.outs == 1 && e.ins == 2 && !r.past && access[0] == Access::as_is &&
                              access[1] == Access::as_is && access[2] == Access::one_value;
        if (together) {
            const int64_t step = s.ndim > 1 ? size : 0;
            r.next_out = s.stride[0][1] * step;
            for (int j = 0; j < 2; ++j) r.step[j] = 1 - j, r.next_in[j] = s.stride[1 + j][1] * step;
        }
        Position at(s, begin);
        while (begin < end) {
            int64_t n = std::min(s.size[0] - at.index[0], end - begin);
            if (gathers) n = std::min<int64_t>(n, kBlock);
            r.n = n;
            if (together) {
                r.rows = at.rows(s, end - begin);
                r.out[0] = address(0, at.offset[0]);
                for (int j = 0; j < 2; ++j) r.in[j] = address(1 + j, at.offset[1 + j]);
                e.kernel(r);
                at.skip_rows(s, r.rows - 1);
                begin += r.rows * n;
                at.advance(s, n);
                continue;
            }
            for (int t = 0; t < e.operands(); ++t) {
                char* here = address(t, at.offset[t]);
                const int copies = e.reads_one && t + 1 == e.operands() ? 1 : kRepeat;
                if (access[t] == Access::one_value) repeat(block[t], here, copies, size);
                if (access[t] == Access::gathered && t >= e.outs)
                    copy_strided(block[t], 1, here, s.stride[t][0], n, size);
                char* used = access[t] == Access::as_is ? here : block[t];
                if (t < e.outs)
                    r.out[t] = used;
                else
                    r.in[t - e.outs] = used, r.step[t - e.outs] = access[t] != Access::one_value;
            }
            r.past ? run_part(r, e, size) : e.kernel(r);
            const int64_t more = as_is ? at.rows(s, end - begin) - 1 : 0;  // which only begin elsewhere
            for (int64_t i = 0; i < more; ++i) {
                for (int t = 0; t < e.outs; ++t) r.out[t] = static_cast<char*>(r.out[t]) + s.stride[t][1] * size;
                for (int j = 0; j < e.ins; ++j)
                    r.in[j] = static_cast<const char*>(r.in[j]) + s.stride[e.outs + j][1] * size;
                r.past ? run_part(r, e, size) : e.kernel(r);
            }
            at.skip_rows(s, more);
            begin += more * n;
            for (int t = 0; t < e.outs; ++t)
                if (access[t] == Access::gathered)
                    copy_strided(address(t, at.offset[t]), s.stride[t][0], block[t], 1, n, size);
            at.advance(s, n);
            begin += n;
        }
        drain(r);
    }

    // The next n elements of operand t as groups of equal rows: f(how many lie before, rows).
    template <class F>
    void move(Position at, int t, int64_t n, F f) const {
        for (int64_t done = 0; done < n;) {
            const Rows rows{address(t, at.offset[t]), s.stride[t][0], s.ndim > 1 ? s.stride[t][1] : 0,
                            std::min(s.size[0] - at.index[0], n - done), at.rows(s, n - done)};
            f(done, rows);
            done += rows.length * rows.count;
            at.skip_rows(s, rows.count - 1);
            at.advance(s, rows.length);
        }
    }

    // Short rows: operands that are not contiguous throughout pass through a block, several rows at a time.
    void blocks(int64_t begin, int64_t end) const {
        Access access[kMaxOperands];
        for (int t = 0; t < e.operands(); ++t) {
            int64_t expected = 1;
            bool dense = true, one = t >= e.outs;
            for (int d = 0; d < s.ndim; ++d) {
                dense = dense && s.stride[t][d] == expected;
                one = one && s.stride[t][d] == 0;
                expected *= s.size[d];
            }
            access[t] = dense ? Access::as_is : one ? Access::one_value : Access::gathered;
        }
        alignas(64) char block[kMaxOperands][kBlock * 8 + kApart];
        for (int t = e.outs; t < e.operands(); ++t)
            if (access[t] == Access::one_value) repeat(block[t], e.tensor[t]->data, kRepeat, size);
        Run r = start(e, 0, 0);
        Position at(s, begin);
        for (; begin < end; begin += kBlock) {
            r.n = std::min<int64_t>(kBlock, end - begin);
            for (int t = 0; t < e.operands(); ++t) {
                char* used = access[t] == Access::as_is ? address(t, begin) : block[t];
                if (t < e.outs)
                    r.out[t] = used;
                else
                    r.in[t - e.outs] = used, r.step[t - e.outs] = access[t] != Access::one_value;
            }
            for (int t = e.outs; t < e.operands(); ++t)
                if (access[t] == Access::gathered)
                    move(at, t, r.n,
                         [&](int64_t done, const Rows& rows) { gather(block[t] + done * size, rows, size); });
            e.kernel(r);
            for (int t = 0; t < e.outs; ++t)
                if (access[t] == Access::gathered)
                    move(at, t, r.n,
                         [&](int64_t done, const Rows& rows) { scatter(rows, block[t] + done * size, size); });
            at = Position(s, std::min(begin + kBlock, end));
        }
    }
};

// Whether the kernel goes by itself through rows that each have one value of the last input.
bool has_rows(const Elementwise& e, const IndexSpace& s) {
    return e.reads_one && s.stride[0][0] == 1 && s.stride[1][0] == 1 && s.stride[2][0] == 0;
}

// Where all are contiguous but one input, which repeats soon. False: this is another case.
bool run_repeated(const Elementwise& e, const IndexSpace& s) {
    const int last = e.operands() - 1, size = size_of(e.tensor[0]->dtype);
    const int64_t period = period_of(s, last, last), n = s.numel();
    if (period == 0 || (s.stride[last][0] == 1 && s.size[0] >= kOwnRow)) return false;
    if (has_rows(e, s) && s.size[0] >= kRowOfOne) return false;
    const int64_t stretch = stretch_of(period);
    const auto buffer = repeated(s, last, e.tensor[last]->data, size, period, stretch);
    Run whole = start(e, n, n * size);
    for (int t = 0; t < e.outs; ++t) whole.out[t] = e.tensor[t]->data;
    for (int j = 0; j < e.ins; ++j) whole.in[j] = e.tensor[e.outs + j]->data, whole.step[j] = 1;
    const int threads = threads_for(n, e.cost);
    const int64_t share = (n / threads + 63) / 64 * 64;
    parallel(threads, [&](int tid, int count) {
        int64_t begin = std::min(n, share * tid);
        const int64_t end = tid + 1 == count ? n : std::min(n, begin + share);
        while (begin < end) {
            const int64_t at = begin % stretch, length = std::min(stretch - at, end - begin);
            Run part = part_of(whole, e, begin, length, size);
            part.in[e.ins - 1] = buffer.get() + at * size;
            run_part(part, e, size);
            begin += length;
        }
        drain(whole);
    });
    return true;
}

}  // namespace

int threads_for(int64_t elements, double cost) {
    // libgomp read the variables when it was loaded
    static const bool spinning = plan::spins(std::getenv("OMP_WAIT_POLICY"), std::getenv("GOMP_SPINCOUNT"));
    return plan::threads_for(static_cast<double>(elements) * cost, max_threads(), spinning);
}

bool is_contiguous(const Elementwise& e) {
    for (int t = 0; t < e.operands(); ++t)
        if (!e.tensor[t]->is_contiguous() && (t < e.outs || !is_one_value(*e.tensor[t]))) return false;
    return true;
}

void run_contiguous(const Elementwise& e, int64_t elements) {
    const int size = size_of(e.tensor[0]->dtype);
    Run r = start(e, elements, elements * size);
    for (int t = 0; t < e.outs; ++t) r.out[t] = e.tensor[t]->data;
    Repeated repeated;
    for (int j = 0; j < e.ins; ++j) {
        const TensorView& in = *e.tensor[e.outs + j];
        r.step[j] = in.is_contiguous() || elements == 1;
        r.in[j] = in.data;
        if (r.step[j] == 0) {
            repeat(repeated.bytes[j], in.data, kRepeat, size);
            r.in[j] = repeated.bytes[j];
        }
    }
    const int threads = threads_for(elements, e.cost);
    // Shares end on multiples of 64 elements, so that no two threads write to one cache line, nor to one byte of bits.
    const int64_t share = (elements / threads + 63) / 64 * 64;
    parallel(threads, [&](int tid, int count) {
        const int64_t begin = std::min(elements, share * tid);
        const int64_t end = tid + 1 == count ? elements : std::min(elements, begin + share);
        if (begin == end) return;
        run_part(part_of(r, e, begin, end - begin, size), e, size);
        drain(r);
    });
}

void run_strided(const Elementwise& e) {
    const IndexSpace s = coalesce(e.tensor, e.operands());
    const int64_t n = s.numel();
    if (s.ndim == 1) {
        bool contiguous = true;
        for (int t = 0; t < e.operands(); ++t)
            contiguous = contiguous && (s.stride[t][0] == 1 || (s.stride[t][0] == 0 && t >= e.outs));
        if (contiguous) {
            TensorView flat[kMaxOperands];
            Elementwise f = e;
            for (int t = 0; t < e.operands(); ++t) {
                flat[t].data = e.tensor[t]->data;
                flat[t].dtype = e.tensor[t]->dtype;
                flat[t].ndim = 1;
                flat[t].shape[0] = n;
                flat[t].stride[0] = s.stride[t][0];
                f.tensor[t] = &flat[t];
            }
            run_contiguous(f, n);
            return;
        }
    }
    if (run_repeated(e, s)) return;
    const Strided strided{e, s, size_of(e.tensor[0]->dtype)};
    bool as_is = s.size[0] >= e.long_row || has_rows(e, s);
    for (int t = 0; t < e.operands(); ++t)
        as_is = as_is && (s.stride[t][0] == 1 || (s.stride[t][0] == 0 && t >= e.outs));
    const bool by_rows = as_is || s.size[0] >= kLongRow;
    // Moving elements one by one costs about as much as a dear function.
    const int threads = threads_for(n, as_is ? e.cost : e.cost + 0.5);
    parallel(threads, [&](int tid, int count) {
        const int64_t begin = n * tid / count, end = n * (tid + 1) / count;
        if (begin == end) return;
        if (by_rows)
            strided.rows(begin, end);
        else
            strided.blocks(begin, end);
    });
}

void run(const char* op, const char* kernel, const Elementwise& e) {
    const int64_t n = e.tensor[0]->numel();
    if (n == 0) return;
    const bool contiguous = is_contiguous(e);
    run_on_cpu(
        op, kernel, static_cast<double>(n) * e.cost,
        [&] {
            const TensorView& out = *e.tensor[0];
            const bool runs = contiguous || (out.is_contiguous() && out.shape[out.ndim - 1] >= e.long_row);
            const bool past = runs && goes_past(e);
            return concat(name_of(table().level), contiguous ? ", contiguous, " : ", strided, ", threads_for(n, e.cost),
                          " threads", past ? plan::kPastCaches : "");
        },
        [&] { contiguous ? run_contiguous(e, n) : run_strided(e); });
}

}  // namespace nk::cpu
