// New rows go into a cache on the CPU: a copy, page by page.
#include <algorithm>
#include <cstring>

#include "attention/problem.h"
#include "call/run.h"
#include "cpu/strided_copy.h"
#include "cpu/threads.h"

namespace nk::attention {

namespace {

constexpr double kCopiedPerNanosecond = 4;  // bytes
constexpr double kCopyThreadFrom = 20000;   // nanoseconds that are worth a thread

// Rows of one batch entry and head.
void append_rows(const AppendProblem& p, int64_t batch, int64_t head) {
    const int64_t element = size_of(p.dtype), first = number_at(*p.lengths, batch);
    const int64_t page_size = p.table != nullptr ? p.page_size : p.capacity;
    for (int64_t row = 0; row < p.rows;) {
        const int64_t to = first + row, in_page = to % page_size, n = std::min(p.rows - row, page_size - in_page);
        const int64_t page = p.table != nullptr ? number_at(*p.table, batch, to / page_size) : batch;
        const cpu::Grid from{p.from.data + (batch * p.from.batch[0] + head * p.from.head + row * p.from.row) * element,
                             p.from.column, p.from.row};
        const cpu::Grid into{
            p.cache.data + (page * p.cache.batch[0] + head * p.cache.head + in_page * p.cache.row) * element,
            p.cache.column, p.cache.row};
        cpu::copy(into, from, n, p.size, static_cast<int>(element));
        row += n;
    }
}

}  // namespace

void append_cpu(const AppendProblem& p) {
    const int64_t jobs = p.batches * p.heads;
    const double work =
        static_cast<double>(jobs * p.rows) * static_cast<double>(p.size) * size_of(p.dtype) / kCopiedPerNanosecond;
    const int threads = static_cast<int>(std::clamp<double>(work / kCopyThreadFrom, 1, cpu::max_threads()));
    run_on_cpu(
        "append_to_cache", "copy", work, [&] { return concat(threads, " threads"); },
        [&] {
            cpu::parallel(threads, [&](int thread, int count) {
                for (int64_t job = jobs * thread / count; job < jobs * (thread + 1) / count; ++job)
                    append_rows(p, job / p.heads, job % p.heads);
            });
        });
}

}  // namespace nk::attention
