#include "cpu/rows.h"

namespace nk::cpu {

namespace {

constexpr int64_t kGatheredBytes = int64_t{64} << 10;  // rows that are gathered together
constexpr int64_t kMostRows = 64;

// f(place in the row, offset in memory, elements along the innermost dim), in the row's order.
template <class F>
void each_run(const Dims& row, F f) {
    Dims outside = row;
    outside.size[0] = 1;
    const int64_t runs = outside.numel(), n = row.size[0];
    for (int64_t i = 0; i < runs; ++i) f(i * n, outside.offset(i));
}

}  // namespace

void Dims::add(int64_t n, int64_t step) {
    if (n == 1) return;
    int64_t& inner = size[ndim - 1];
    if (inner == 1 && ndim == 1) {
        inner = n;
        stride[0] = step;
    } else if (step == stride[ndim - 1] * inner) {
        inner *= n;
    } else {
        size[ndim] = n;
        stride[ndim++] = step;
    }
}

int64_t Dims::numel() const {
    int64_t n = 1;
    for (int d = 0; d < ndim; ++d) n *= size[d];
    return n;
}

int64_t Dims::offset(int64_t index) const {
    if (ndim == 1) return index * stride[0];
    int64_t at = 0;
    for (int d = 0; d < ndim; index /= size[d++]) at += index % size[d] * stride[d];
    return at;
}

RowSet::RowSet(const TensorView& t, int row_dims) : data(static_cast<char*>(t.data)), size(size_of(t.dtype)) {
    for (int d = t.ndim - 1; d >= 0; --d) (d >= t.ndim - row_dims ? row : outer).add(t.shape[d], t.stride[d]);
    length = row.numel();
    count = outer.numel();
}

bool RowSet::one_value() const {
    const auto still = [](const Dims& dims) {
        for (int d = 0; d < dims.ndim; ++d)
            if (dims.stride[d] != 0 && dims.size[d] > 1) return false;
        return true;
    };
    return still(row) && still(outer);
}

void RowSet::gather(int64_t first, int64_t rows, char* to, int64_t apart) const {
    char* from = at(first);
    each_run(row, [&](int64_t place, int64_t offset) {
        copy({to + place * size, 1, apart}, {from + offset * size, row.stride[0], this->apart()}, rows, row.size[0],
             size);
    });
}

void RowSet::scatter(int64_t first, int64_t rows, const char* from, int64_t apart) const {
    char* to = at(first);
    each_run(row, [&](int64_t place, int64_t offset) {
        copy({to + offset * size, row.stride[0], this->apart()}, {const_cast<char*>(from) + place * size, 1, apart},
             rows, row.size[0], size);
    });
}

int64_t rows_at_a_time(int64_t length, int size) {
    return std::clamp<int64_t>(kGatheredBytes / std::max<int64_t>(length * size, 1), 1, kMostRows);
}

RowBuffer::RowBuffer(const RowSet& rows, bool output, int64_t most)
    : rows_(rows), as_is_(rows.contiguous()), output_(output) {
    if (as_is_) return;
    const int64_t line = 64 / rows.size;
    apart_ = (rows.length + line - 1) / line * line + line;  // rows begin in other sets of L1
    buffer_.reset(new char[static_cast<size_t>(most * apart_ * rows.size)]);
}

void* RowBuffer::take(int64_t first, int64_t rows) {
    if (as_is_) return rows_.at(first);
    if (!output_ && rows > filled_) {
        rows_.gather(first, rows, buffer_.get(), apart_);
        if (rows_.one_value()) filled_ = rows;
    }
    return buffer_.get();
}

void RowBuffer::give_back(int64_t first, int64_t rows) {
    if (!as_is_) rows_.scatter(first, rows, buffer_.get(), apart_);
}

}  // namespace nk::cpu
