// Attention on the CPU.
#include "attention/cpu.h"

namespace nk::attention {

void forward_cpu(const Problem& p) {
    if (!forward_by_tiles(p)) forward_row_by_row(p);
}

void backward_cpu(const BackwardProblem& p) {
    if (!backward_by_tiles(p)) backward_row_by_row(p);
}

}  // namespace nk::attention
