// Copies between strided and contiguous memory.
#pragma once

#include <cstdint>

namespace nk::cpu {

// `count` rows of `length` elements; strides in elements.
struct Rows {
    char* data;
    int64_t stride;  // from element to element
    int64_t apart;   // from row to row
    int64_t length, count;
};

// The rows' elements of `size` bytes, one after the other, into `to`, or from `from` into the rows.
void gather(void* to, const Rows& from, int size);
void scatter(const Rows& to, const void* from, int size);

// Copies n elements of `size` bytes from one stride to another; strides in elements.
void copy_strided(void* to, int64_t to_stride, const void* from, int64_t from_stride, int64_t n, int size);

struct Grid {
    char* data;
    int64_t step, apart;  // along a row, and from row to row
};

// `rows` rows of n elements from one place to another; the shorter way through memory goes innermost.
void copy(const Grid& to, const Grid& from, int64_t rows, int64_t n, int size);

// `n` copies of one element.
void repeat(void* to, const void* value, int n, int size);

}  // namespace nk::cpu
