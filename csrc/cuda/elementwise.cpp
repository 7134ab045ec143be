#include "cuda/elementwise.h"

#include "context/context.h"
#include "driver/kernel.h"
#include "plan/elementwise_cuda.h"

namespace nk::cuda {

void run_elementwise(const ElementwiseKernel& what, const TensorView* const* views, int outputs, int tensors,
                     const ElementwiseArguments& arguments) {
    const TensorView& first = *views[0];
    const IndexSpace space = coalesce(views, tensors);
    plan::Operand operands[kMaxTensors];
    for (int t = 0; t < tensors; ++t) operands[t] = plan::operand(*views[t], t < outputs);
    auto launches =
        plan::plan_elementwise(space, operands, tensors - outputs, first.dtype, multiprocessors(first.device));
    const std::string kernel = std::string(what.name) + "_" + short_name(first.dtype);
    if (trace::active()) trace::record({what.op, "cuda", kernel, plan::describe(launches), ""});
    for (plan::ElementwiseLaunch& l : launches) {
        for (int t = 0; t < tensors; ++t) l.params.data[t] = at(*views[t], l.offset[t]);
        l.params.activation = arguments.activation;
        l.params.p[0] = arguments.p[0];
        l.params.p[1] = arguments.p[1];
        launch(what.op, what.fatbin, kernel, l.grid, 1, kElementwiseThreads, first.device, l.params);
    }
}

}  // namespace nk::cuda
