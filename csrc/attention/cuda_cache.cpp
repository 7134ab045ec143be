// A cache of keys and values on CUDA: there is no kernel for it yet.
#include "attention/problem.h"
#include "tensor/check.h"

namespace nk::attention {

void append_cuda(const AppendProblem&) { fail_runtime("attention_with_kv_cache", "a cache has no CUDA kernel yet"); }

}  // namespace nk::attention
