#include "../check.h"
#include "problem.h"
namespace nk::normalization {
void forward_cuda(const Forward& p) { fail_runtime(p.op(), "no CUDA yet"); }
void backward_cuda(const Backward& p) { fail_runtime(p.op(), "no CUDA yet"); }
}  // namespace nk::normalization
