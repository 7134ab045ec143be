#include "cuda/columns.h"
#include "kernels/activation.h"
#include "matmul/problem.h"

namespace nk::cuda {

void bias_backward(const BiasBackwardCall& call) {
    const bool has_activation = call.activation != Activation::identity;
    ColumnProblem c;
    c.views[0] = call.gz;
    c.views[1] = &call.g;
    c.inputs = 1;
    if (has_activation) c.views[2] = call.z, c.inputs = 2;
    for (int k = 0; k <= c.inputs; ++k) {
        if (c.views[k] == nullptr) continue;
        c.row_stride[k] = c.views[k]->stride[0];
        c.column_stride[k] = c.views[k]->stride[1];
    }
    c.rows = call.g.shape[0];
    c.columns = call.g.shape[1];
    c.type = call.g.dtype;
    c.device = call.g.device;
    run_columns({"activation_bias_backward", "matmul_bias_backward",
                 has_activation ? "matmul_bias_backward" : "matmul_column_sum"},
                c, call.gb, {static_cast<int>(call.activation), {call.p[0], call.p[1]}});
}

}  // namespace nk::cuda
