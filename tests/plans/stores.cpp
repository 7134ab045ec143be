// csrc/plan/stores_cpu.h for tests/test_stores.py.
#include "plan/stores_cpu.h"

extern "C" {

int goes_past(int64_t written, int64_t read, int64_t cache) { return nk::plan::goes_past(written, read, cache); }

int is_row_of_lines(int64_t bytes) { return nk::plan::is_row_of_lines(bytes); }

// tensors of one shape, the outputs first
int tensors_go_past(int outputs, int inputs, int ndim, const int64_t* shape, const int64_t* strides,
                    const uint64_t* addresses, int dtype, int64_t cache) {
    nk::TensorView views[8];
    const nk::TensorView* list[8];
    for (int t = 0; t < outputs + inputs; ++t) {
        nk::TensorView& v = views[t];
        v.data = reinterpret_cast<void*>(addresses[t]);
        v.dtype = static_cast<nk::DType>(dtype);
        v.ndim = ndim;
        for (int d = 0; d < ndim; ++d) v.shape[d] = shape[d], v.stride[d] = strides[t * ndim + d];
        list[t] = &v;
    }
    return nk::plan::goes_past(list, outputs, inputs, cache);
}

}  // extern "C"
