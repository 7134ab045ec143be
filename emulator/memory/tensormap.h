// A tensor map: the 128 opaque bytes that the driver makes for tensor copies, as we lay them out.
#pragma once

#include <cstdint>
#include <vector>

#include "../exec/transfers.h"

namespace emu {

enum class MapElement : uint8_t {  // CUtensorMapDataType
    u8,
    u16,
    u32,
    s32,
    u64,
    s64,
    f16,
    f32,
    f64,
    bf16,
    f32_ftz,
    tf32,
    tf32_ftz,
    count
};

struct TensorMap {
    static constexpr uint32_t kMagic = 0x70614d54;
    uint32_t magic = kMagic;
    MapElement element = MapElement::u8;
    uint8_t rank = 0;
    uint8_t swizzle = 0;  // 0, or 1, 2, 3 for 32, 64, 128 bytes
    bool im2col = false;
    bool fills_nan = false;
    uint8_t element_strides[5] = {};
    uint16_t box[5] = {};  // tiled; of im2col: channels, pixels
    int16_t lower[3] = {}, upper[3] = {};
    uint32_t last[5] = {};     // index of each dimension
    uint64_t strides[4] = {};  // bytes, of the dimensions from the second on
    uint64_t address = 0;
    uint32_t check = 0;  // over what is before it

    uint32_t checksum() const;
    bool valid() const { return magic == kMagic && check == checksum(); }
    uint32_t element_bytes() const;
    uint32_t tile_bytes() const;
};
static_assert(sizeof(TensorMap) <= 128);

// The rows of the tile at these coordinates as far as they lie within the tensor; whether it reaches outside.
bool tile_pieces(const TensorMap& m, const int32_t* at, const uint16_t* offsets, std::vector<Piece>& to);

// What elements outside of the tensor are (`type`: MapElement, | kFillsNan), and elements that change on their way.
inline constexpr uint8_t kFillsNan = 128;
void fill_outside(uint8_t type, char* to, uint32_t bytes);
bool converts(uint8_t type);
void convert_elements(uint8_t type, char* data, uint32_t bytes);

}  // namespace emu
