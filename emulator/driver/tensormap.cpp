// cuTensorMapEncodeTiled and cuTensorMapEncodeIm2col: the driver's checks of their arguments, and the object.
#include "../memory/tensormap.h"

#include <cstring>

#include "api.h"

namespace emu {

namespace {

enum Interleave { kNone, k16B, k32B };

void require(bool holds, const char* what) {
    if (!holds) throw Error(invalid_value, concat("tensor map: ", what));
}

struct Arguments {
    void* map;
    int type;
    uint32_t rank;
    void* address;
    const uint64_t *dims, *strides;
    const uint32_t* element_strides;
    int interleave, swizzle, promotion, fill;
};

TensorMap common(const Arguments& a, uint32_t least_rank) {
    require(a.map != nullptr && reinterpret_cast<uint64_t>(a.map) % 64 == 0, "its address is no multiple of 64");
    require(a.type >= 0 && a.type < static_cast<int>(MapElement::count), "no such type of elements");
    require(a.interleave >= kNone && a.interleave <= k32B, "no such interleave");
    require(a.swizzle >= 0 && a.swizzle <= 3, "no such swizzle");
    require(a.promotion >= 0 && a.promotion <= 3, "no such L2 promotion");
    require(a.fill == 0 || a.fill == 1, "no such fill of what is out of bounds");
    if (a.interleave != kNone) least_rank = 3;
    require(a.rank >= least_rank && a.rank <= 5, "rank");
    require(a.address != nullptr && a.dims != nullptr && a.element_strides != nullptr, "a null pointer");
    require(a.rank == 1 || a.strides != nullptr, "a null pointer");
    const auto address = reinterpret_cast<uint64_t>(a.address);
    require(address % (a.interleave == k32B ? 32 : 16) == 0, "the tensor's address is no multiple of 16 (32)");
    require(a.interleave != k32B || a.swizzle == 1, "an interleave of 32 bytes needs a swizzle of 32 bytes");
    const auto e = static_cast<MapElement>(a.type);
    require(a.fill == 0 || e == MapElement::f16 || e >= MapElement::f32,
            "NaN for elements that are no floating-point numbers");
    if (a.interleave != kNone) throw Error(not_supported, "the emulator knows no interleaved tensor maps");

    TensorMap m;
    m.element = e, m.rank = static_cast<uint8_t>(a.rank), m.swizzle = static_cast<uint8_t>(a.swizzle);
    m.fills_nan = a.fill == 1, m.address = address;
    for (uint32_t d = 0; d < a.rank; ++d) {
        require(a.dims[d] > 0 && a.dims[d] <= uint64_t{1} << 32, "a dimension that is 0 or above 2^32");
        m.last[d] = static_cast<uint32_t>(a.dims[d] - 1);
        require(a.element_strides[d] > 0 && a.element_strides[d] <= 8, "an element stride that is 0 or above 8");
        m.element_strides[d] = static_cast<uint8_t>(a.element_strides[d]);
        if (d == 0) continue;
        const uint64_t stride = a.strides[d - 1];
        require(stride % 16 == 0 && stride < uint64_t{1} << 40, "a stride that is no multiple of 16, or 2^40 and more");
        m.strides[d - 1] = stride;
    }
    return m;
}

void check_inner(const TensorMap& m, uint64_t bytes) {
    require(bytes % 16 == 0, "the bytes of the box's inner dimension are no multiple of 16");
    require(m.swizzle == 0 || bytes <= 16u << m.swizzle, "the box's inner dimension is larger than the swizzle");
}

void finish(TensorMap& m, void* to) {
    m.check = m.checksum();
    std::memset(to, 0, 128);
    std::memcpy(to, &m, sizeof m);
}

}  // namespace

}  // namespace emu

using namespace emu;

EMU_API int cuTensorMapEncodeTiled(void* map, int type, uint32_t rank, void* address, const uint64_t* dims,
                                   const uint64_t* strides, const uint32_t* box, const uint32_t* element_strides,
                                   int interleave, int swizzle, int promotion, int fill) {
    return guarded([&] {
        TensorMap m =
            common({map, type, rank, address, dims, strides, element_strides, interleave, swizzle, promotion, fill}, 1);
        require(box != nullptr, "a null pointer");
        for (uint32_t d = 0; d < rank; ++d) {
            require(box[d] > 0 && box[d] <= 256, "a box dimension that is 0 or above 256");
            m.box[d] = static_cast<uint16_t>(box[d]);
        }
        check_inner(m, uint64_t{box[0]} * m.element_bytes());
        finish(m, map);
    });
}

EMU_API int cuTensorMapEncodeIm2col(void* map, int type, uint32_t rank, void* address, const uint64_t* dims,
                                    const uint64_t* strides, const int* lower, const int* upper, uint32_t channels,
                                    uint32_t pixels, const uint32_t* element_strides, int interleave, int swizzle,
                                    int promotion, int fill) {
    return guarded([&] {
        TensorMap m =
            common({map, type, rank, address, dims, strides, element_strides, interleave, swizzle, promotion, fill}, 3);
        require(lower != nullptr && upper != nullptr, "a null pointer");
        require(channels > 0 && channels <= 256, "channels per pixel: 0 or above 256");
        require(pixels > 0 && pixels <= 1024, "pixels per column: 0 or above 1024");
        m.im2col = true;
        m.box[0] = static_cast<uint16_t>(channels), m.box[1] = static_cast<uint16_t>(pixels);
        const int limit = rank == 3 ? 1 << 15 : rank == 4 ? 1 << 7 : 1 << 4;
        for (uint32_t d = 0; d + 2 < rank; ++d) {
            require(lower[d] >= -limit && lower[d] < limit && upper[d] >= -limit && upper[d] < limit,
                    "a corner of the box out of its range");
            m.lower[d] = static_cast<int16_t>(lower[d]), m.upper[d] = static_cast<int16_t>(upper[d]);
        }
        check_inner(m, uint64_t{channels} * m.element_bytes());
        finish(m, map);
    });
}
