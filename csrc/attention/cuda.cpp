// Attention on CUDA.
#include "attention/problem.h"
#include "tensor/check.h"

namespace nk::attention {

void forward_cuda(const Problem&) { fail_runtime("attention", "there is no CUDA kernel of attention yet"); }
void backward_cuda(const BackwardProblem&) { fail_runtime("attention", "there is no CUDA kernel of attention yet"); }

}  // namespace nk::attention
