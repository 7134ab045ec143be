// csrc/plan/threads_cpu.h for tests/test_threads_for.py.
#include "plan/threads_cpu.h"

extern "C" {

int threads_for(double work, int most, int spinning) { return nk::plan::threads_for(work, most, spinning != 0); }

int spins(const char* policy, const char* count) { return nk::plan::spins(policy, count); }

}  // extern "C"
