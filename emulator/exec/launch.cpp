// Spreads the clusters of a launch over threads, and words what went wrong.
#include <immintrin.h>

#include <algorithm>
#include <cfenv>
#include <cstdio>
#include <exception>
#include <numeric>
#include <thread>

#include "cluster.h"

namespace emu {

std::string place(const Warp& w, const Inst* i) {
    for (const auto& [name, code] : w.block->launch->program->functions)
        if (i >= code->insts.data() && i < code->insts.data() + code->insts.size()) {
            const ptx::Position& at = code->position(i);
            return concat(code->module->source(at), " (", code->module->line(at.line), ")");
        }
    return "no function";
}

void Launch::locate(uint64_t number, uint32_t rank, uint32_t (&id)[3]) const {
    const uint64_t across = grid[0] / cluster[0], down = grid[1] / cluster[1];
    const uint64_t at[] = {number % across, number / across % down, number / across / down};
    const uint32_t in[] = {rank % cluster[0], rank / cluster[0] % cluster[1], rank / cluster[0] / cluster[1]};
    for (size_t d = 0; d < 3; ++d) id[d] = static_cast<uint32_t>(at[d] * cluster[d] + in[d]);
}

void fail(const Warp& w, const Inst& i, int code, int lane, const std::string& what) {
    const Launch& l = *w.block->launch;
    const uint32_t thread = w.index * kLanes + static_cast<uint32_t>(lane);
    const uint32_t x = thread % l.block[0], y = thread / l.block[0] % l.block[1], z = thread / l.block[0] / l.block[1];
    const uint32_t* b = w.block->id;
    throw Error(static_cast<Status>(code), concat("kernel ", l.code->name, ", ", place(w, &i), ", block (", b[0], ", ",
                                                  b[1], ", ", b[2], "), thread (", x, ", ", y, ", ", z, "): ", what));
}

void Output::print(uint64_t cluster, const std::string& text) {
    const std::lock_guard lock(mutex_);
    texts_[cluster] += text;
    if ((bytes_ += text.size()) > kMostKept) write();
}

void Output::flush() {
    const std::lock_guard lock(mutex_);
    if (!texts_.empty()) write();
}

void Output::write() {
    for (const auto& [cluster, text] : texts_) std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
    texts_.clear(), bytes_ = 0;
}

namespace {

struct Work {
    std::atomic<uint64_t> next{0};
    std::vector<uint32_t> order;  // of the clusters; empty: as they are numbered
    std::mutex mutex;
    std::exception_ptr error;
    uint64_t failed = ~uint64_t{0};
};

constexpr unsigned kAsStarted = 0x1f80;  // MXCSR: round to nearest, flush nothing, trap nothing

// The error of the lowest cluster is kept, so that the same launch fails alike each time.
void work(Launch& l, Work& shared) {
    std::fenv_t former;
    std::fegetenv(&former);
    std::fesetenv(FE_DFL_ENV);
    _mm_setcsr(kAsStarted);  // not every C library lets FE_DFL_ENV end the flushing of subnormals
    uint64_t number = 0;
    try {
        Cluster cluster(l);
        while ((number = shared.next.fetch_add(1)) < l.clusters()) {
            if (!shared.order.empty()) number = shared.order[number];
            cluster.run(number);
        }
        const std::lock_guard lock(shared.mutex);
        for (const auto& b : cluster.blocks) l.counters.add(b->counters);
    } catch (...) {
        const std::lock_guard lock(shared.mutex);
        if (number < shared.failed) shared.failed = number, shared.error = std::current_exception();
        shared.next.store(l.clusters());
    }
    std::fesetenv(&former);
}

}  // namespace

void run(Launch& l) {
    Work shared;
    if (l.options.shuffle != 0 && l.clusters() < (1u << 24)) {
        shared.order.resize(l.clusters());
        std::iota(shared.order.begin(), shared.order.end(), 0u);
        std::shuffle(shared.order.begin(), shared.order.end(), Random{l.options.shuffle});
    }
    if (l.options.check_global) l.global.begin(l.ranges, l.options.check_shared);  // there the clocks are kept
    const uint64_t cores = l.options.threads > 0 ? static_cast<uint64_t>(l.options.threads)
                                                 : std::max(1u, std::thread::hardware_concurrency());
    const uint64_t threads = std::min(cores, l.clusters());
    std::vector<std::thread> helpers;
    for (uint64_t k = 1; k < threads; ++k) helpers.emplace_back([&] { work(l, shared); });
    work(l, shared);
    for (std::thread& t : helpers) t.join();
    l.global.end();
    l.output.flush();
    if (shared.error) std::rethrow_exception(shared.error);
}

}  // namespace emu
