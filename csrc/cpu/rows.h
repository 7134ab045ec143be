// A tensor as rows: its last dims make a row, the others number the rows. Rows that are not contiguous are copied a few
// at a time, never the tensor.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "cpu/strided_copy.h"
#include "tensor/view.h"

namespace nk::cpu {

// Dims from the innermost on; neighbours that lie densely one inside the other are one. At least one.
struct Dims {
    int ndim = 1;
    int64_t size[kMaxDims];
    int64_t stride[kMaxDims];  // elements

    Dims() { size[0] = stride[0] = 1; }
    void add(int64_t n, int64_t step);  // the next dim further out
    int64_t numel() const;
    int64_t offset(int64_t index) const;  // elements
};

struct RowSet {
    char* data;
    int size;  // bytes of an element
    Dims row, outer;
    int64_t length, count;

    RowSet(const TensorView& t, int row_dims);
    bool contiguous() const { return row.ndim == 1 && (row.stride[0] == 1 || length == 1); }
    bool one_value() const;  // every element lies at one address
    char* at(int64_t r) const { return data + outer.offset(r) * size; }
    int64_t apart() const { return outer.stride[0]; }  // from row to row, as far as `together` goes
    int64_t together(int64_t r) const { return outer.size[0] - r % outer.size[0]; }

    // Rows first, first + 1, ... (no more than `together`) to or from contiguous ones, `apart` elements from row to
    // row.
    void gather(int64_t first, int64_t rows, char* to, int64_t apart) const;
    void scatter(int64_t first, int64_t rows, const char* from, int64_t apart) const;
};

// The rows of one operand as kernels read or write them: where they lie, or by way of a buffer.
class RowBuffer {
  public:
    RowBuffer(const RowSet& rows, bool output, int64_t most);
    // Rows [first, first + rows) for the kernel to use: input rows are there, output rows are to be written.
    void* take(int64_t first, int64_t rows);
    int64_t apart() const { return as_is_ ? rows_.apart() : apart_; }
    void give_back(int64_t first, int64_t rows);  // output rows have been written

  private:
    const RowSet& rows_;
    const bool as_is_, output_;
    int64_t apart_ = 0, filled_ = 0;  // filled: rows that hold the one value already
    std::unique_ptr<char[]> buffer_;
};

// Rows that are copied together.
int64_t rows_at_a_time(int64_t length, int size);

}  // namespace nk::cpu
