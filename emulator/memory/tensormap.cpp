#include "tensormap.h"

#include <cstring>

namespace emu {

uint32_t TensorMap::checksum() const {
    unsigned char bytes[offsetof(TensorMap, check)];
    std::memcpy(bytes, this, sizeof bytes);
    uint32_t h = 2166136261u;
    for (const unsigned char b : bytes) h = (h ^ b) * 16777619u;
    return h;
}

uint32_t TensorMap::element_bytes() const {
    constexpr uint8_t bytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
    return bytes[static_cast<size_t>(element)];
}

namespace {

uint32_t extent(const TensorMap& m, uint32_t d) {
    // the step along the first dimension does not count: without interleaving there is none
    return d == 0 ? m.box[0] : (m.box[d] + m.element_strides[d] - 1u) / m.element_strides[d];
}

// Elements [c, c + count) of a row at `row`, clipped to the first dimension.
bool add_row(const TensorMap& m, uint64_t row, int64_t c, uint32_t count, uint32_t offset, std::vector<Piece>& to) {
    const int64_t first = std::max<int64_t>(c, 0), end = std::min<int64_t>(c + count, int64_t{m.last[0]} + 1);
    if (first >= end) return false;
    const uint32_t size = m.element_bytes();
    to.push_back({reinterpret_cast<char*>(row + static_cast<uint64_t>(first) * size),
                  offset + static_cast<uint32_t>(first - c) * size, static_cast<uint32_t>(end - first) * size});
    return end - first == count;
}

bool tiled(const TensorMap& m, const int32_t* at, std::vector<Piece>& to) {
    const uint32_t row_bytes = m.box[0] * m.element_bytes();
    uint32_t rows = 1, index[5] = {};
    for (uint32_t d = 1; d < m.rank; ++d) rows *= extent(m, d);
    bool outside = false;
    for (uint32_t r = 0; r < rows; ++r) {
        uint64_t row = m.address;
        bool within = true;
        for (uint32_t d = 1; d < m.rank; ++d) {
            const int64_t c = int64_t{at[d]} + int64_t{index[d]} * m.element_strides[d];
            within = within && c >= 0 && c <= m.last[d];
            row += static_cast<uint64_t>(c) * m.strides[d - 1];
        }
        outside = !(within && add_row(m, row, at[0], m.box[0], r * row_bytes, to)) || outside;
        for (uint32_t d = 1; d < m.rank && ++index[d] == extent(m, d); ++d) index[d] = 0;
    }
    return outside;
}

// Pixels one after the other within the bounding box: the first spatial dimension first, then the next, then the image.
bool columns(const TensorMap& m, const int32_t* at, const uint16_t* offsets, std::vector<Piece>& to) {
    const uint32_t spatial = m.rank - 2u, row_bytes = m.box[0] * m.element_bytes();
    int64_t pixel[4];
    for (uint32_t d = 0; d < m.rank - 1u; ++d) pixel[d] = at[d + 1];
    bool outside = false;
    for (uint32_t p = 0; p < m.box[1]; ++p) {
        uint64_t row = m.address;
        bool within = true;
        for (uint32_t d = 0; d < m.rank - 1u; ++d) {
            const int64_t c = pixel[d] + (d < spatial ? offsets[d] : 0);
            within = within && c >= 0 && c <= m.last[d + 1];
            row += static_cast<uint64_t>(c) * m.strides[d];
        }
        outside = !(within && add_row(m, row, at[0], m.box[0], p * row_bytes, to)) || outside;
        uint32_t d = 0;
        for (; d < spatial; ++d) {
            pixel[d] += m.element_strides[d + 1];
            if (pixel[d] <= int64_t{m.last[d + 1]} + m.upper[d]) break;
            pixel[d] = m.lower[d];
        }
        if (d == spatial) ++pixel[spatial];
    }
    return outside;
}

}  // namespace

uint32_t TensorMap::tile_bytes() const {
    if (im2col) return uint32_t{box[0]} * box[1] * element_bytes();
    uint32_t n = element_bytes();
    for (uint32_t d = 0; d < rank; ++d) n *= extent(*this, d);
    return n;
}

bool tile_pieces(const TensorMap& m, const int32_t* at, const uint16_t* offsets, std::vector<Piece>& to) {
    return m.im2col ? columns(m, at, offsets, to) : tiled(m, at, to);
}

void fill_outside(uint8_t type, char* to, uint32_t bytes) {
    std::memset(to, 0, bytes);
    if (!(type & kFillsNan)) return;
    const auto repeat = [&](auto x) {
        for (uint32_t k = 0; k + sizeof x <= bytes; k += sizeof x) std::memcpy(to + k, &x, sizeof x);
    };
    switch (static_cast<MapElement>(type & ~kFillsNan)) {
        case MapElement::f16:
        case MapElement::bf16:
            return repeat(uint16_t{0x7fff});
        case MapElement::f64:
            return repeat(uint64_t{0x7fffffffffffffff});
        default:
            return repeat(uint32_t{0x7fffffff});
    }
}

bool converts(uint8_t type) {
    const auto e = static_cast<MapElement>(type & ~kFillsNan);
    return e == MapElement::f32_ftz || e == MapElement::tf32 || e == MapElement::tf32_ftz;
}

void convert_elements(uint8_t type, char* data, uint32_t bytes) {
    const auto e = static_cast<MapElement>(type & ~kFillsNan);
    for (uint32_t k = 0; k < bytes; k += 4) {
        uint32_t x;
        std::memcpy(&x, data + k, 4);
        const bool finite = (x & 0x7f800000) != 0x7f800000;
        if (e != MapElement::tf32 && (x & 0x7f800000) == 0) x &= 0x80000000;
        if (e != MapElement::f32_ftz) x = finite ? (x + 0x1000) & 0xffffe000 : x;  // to nearest, ties away from zero
        std::memcpy(data + k, &x, 4);
    }
}

}  // namespace emu
