// OpenMP's pool, shared with torch: its libgomp has the same soname, so torch.set_num_threads is obeyed.
#pragma once

#include <omp.h>

#include <atomic>
#include <exception>

namespace nk::cpu {

// Threads that a parallel region may use here; 1 inside another region.
inline int max_threads() { return omp_in_parallel() ? 1 : omp_get_max_threads(); }

// Runs f(tid, n) on n threads; the first exception is thrown again in the caller.
template <class F>
void parallel(int threads, F&& f) {
    if (threads <= 1) {
        f(0, 1);
        return;
    }
    std::exception_ptr error;
    std::atomic_flag failed = ATOMIC_FLAG_INIT;
#pragma omp parallel num_threads(threads)
    {
        try {
            f(omp_get_thread_num(), omp_get_num_threads());
        } catch (...) {
            if (!failed.test_and_set()) error = std::current_exception();
        }
    }
    if (error) std::rethrow_exception(error);
}

// Stores past the caches are not ordered with the signal that this thread's share is done.
inline void drain_stores() { std::atomic_thread_fence(std::memory_order_seq_cst); }

// A barrier among the threads of the innermost parallel(); a thread that throws before it would hang the others.
inline void barrier() {
#pragma omp barrier
}

}  // namespace nk::cpu
