#include <algorithm>

#include "matmul/problem.h"
#include "tensor/geometry.h"

namespace nk {

void as_batch(TensorView& t, const int64_t* shape, int ndim) {
    if (t.ndim == ndim && std::equal(shape, shape + ndim - 2, t.shape)) return;
    int64_t own[kMaxDims];
    std::copy(shape, shape + ndim - 2, own);
    own[ndim - 2] = t.size(-2), own[ndim - 1] = t.size(-1);
    TensorView repeated = t;
    if (expand(repeated, own, ndim)) t = repeated;
}

void as_result(TensorView& t, bool row, bool column) {
    if (column) t.shape[t.ndim] = 1, t.stride[t.ndim] = 0, ++t.ndim;
    if (!row) return;
    t.shape[t.ndim] = t.shape[t.ndim - 1], t.stride[t.ndim] = t.stride[t.ndim - 1], ++t.ndim;
    t.shape[t.ndim - 2] = 1, t.stride[t.ndim - 2] = 0;
}

bool fold_rows(TensorView& t) {
    int64_t rows = 1, step = 0;
    for (int i = t.ndim - 2; i >= 0; --i) {
        if (t.shape[i] == 1) continue;
        if (rows == 1) step = t.stride[i];
        if (t.stride[i] != step * rows) return false;
        rows *= t.shape[i];
    }
    const int last = t.ndim - 1;
    t.shape[1] = t.shape[last], t.stride[1] = t.stride[last];
    t.shape[0] = rows, t.stride[0] = step;
    t.ndim = 2;
    return true;
}

}  // namespace nk
