// The CUDA plans of csrc/plan/ and csrc/softmax/plan_cuda.h as JSON, for tests/test_cuda_activation_plan.py.
#include <sstream>

#include "plan/columns_cuda.h"
#include "softmax/plan_cuda.h"

namespace {

using namespace nk;

std::string text;

template <class T>
std::string list(const T* items, int n) {
    std::ostringstream s;
    for (int i = 0; i < n; ++i) s << (i ? ", " : "[") << items[i];
    return n ? s.str() + "]" : "[]";
}

template <int N>
std::string layout(const cuda::Layout<N>& l, int tensors) {
    std::ostringstream s;
    int64_t sizes[cuda::kLayoutDims];
    for (int d = 0; d < l.ndim; ++d) sizes[d] = l.size[d].value;
    s << "{\"size\": " << list(sizes, l.ndim) << ", \"stride\": [";
    for (int t = 0; t < tensors; ++t) s << (t ? ", " : "") << list(l.stride[t], l.ndim);
    return s.str() + "]}";
}

IndexSpace space_of(int tensors, int ndim, const int64_t* shape, const int64_t* strides, int skip) {
    TensorView views[kMaxTensors];
    const TensorView* list[kMaxTensors];
    for (int t = 0; t < tensors; ++t) {
        views[t].ndim = ndim;
        for (int d = 0; d < ndim; ++d) views[t].shape[d] = shape[d], views[t].stride[d] = strides[t * ndim + d];
        list[t] = &views[t];
    }
    return coalesce(list, tensors, skip);
}

}  // namespace

extern "C" {

uint32_t fast_divide(uint32_t n, uint32_t d) { return cuda::divide(n, cuda::make_divisor(d)); }

const char* elementwise_plan(int outputs, int tensors, int ndim, const int64_t* shape, const int64_t* strides,
                             const uint64_t* addresses, int dtype, int sms) {
    plan::Operand operands[kMaxTensors];
    for (int t = 0; t < tensors; ++t) operands[t] = {addresses[t], t < outputs};
    const auto launches = plan::plan_elementwise(space_of(tensors, ndim, shape, strides, -1), operands,
                                                 tensors - outputs, static_cast<DType>(dtype), sms);
    std::ostringstream s;
    for (const auto& l : launches)
        s << (s.tellp() ? ", " : "[") << "{\"vector\": " << l.params.vector << ", \"count\": " << l.params.count
          << ", \"numel\": " << l.params.numel << ", \"steps\": " << l.params.steps << ", \"grid\": " << l.grid
          << ", \"offset\": " << list(l.offset, tensors) << ", \"layout\": " << layout(l.params.layout, tensors) << "}";
    text = launches.empty() ? "[]" : s.str() + "]";
    return text.c_str();
}

const char* column_plan(int64_t rows, int64_t columns, int vector, int dtype, int sms) {
    const auto p = plan::plan_columns(rows, columns, vector, static_cast<DType>(dtype), sms);
    std::ostringstream s;
    s << "{\"lanes\": " << (1 << p.lanes_log2) << ", \"tiles\": " << p.tiles << ", \"parts\": " << p.parts
      << ", \"rows_per_part\": " << p.rows_per_part
      << ", \"workspace\": " << p.workspace(columns, static_cast<DType>(dtype)) << "}";
    text = s.str();
    return text.c_str();
}

const char* softmax_plan(int tensors, int ndim, const int64_t* shape, const int64_t* strides, int dim,
                         const uint64_t* addresses, int dtype, int sms) {
    plan::Operand operands[kMaxTensors];
    int64_t along[kMaxTensors];
    for (int t = 0; t < tensors; ++t) operands[t] = {addresses[t], t == 0}, along[t] = strides[t * ndim + dim];
    const auto p = plan::plan_softmax(space_of(tensors, ndim, shape, strides, dim), along, shape[dim], operands,
                                      static_cast<DType>(dtype), sms);
    std::ostringstream s;
    s << "{\"kernel\": \"" << p.kernel << "\", \"vector\": " << p.vector << ", \"lanes\": " << (1 << p.lanes_log2)
      << ", \"threads\": " << p.threads << ", \"launches\": [";
    for (size_t i = 0; i < p.launches.size(); ++i)
        s << (i ? ", " : "") << "{\"rows\": " << p.launches[i].rows << ", \"grid\": " << p.launches[i].grid
          << ", \"offset\": " << list(p.launches[i].offset, tensors)
          << ", \"layout\": " << layout(p.launches[i].layout, tensors) << "}";
    text = s.str() + "]}";
    return text.c_str();
}

}  // extern "C"
