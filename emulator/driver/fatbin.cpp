#include "fatbin.h"

#include <cstdint>
#include <cstring>

#include "../error.h"

namespace emu {

namespace {

constexpr uint32_t kFatbin = 0xba55ed50, kWrapper = 0x466243b1;
constexpr uint16_t kPtxKind = 1;
constexpr uint64_t kLz4 = 0x2000, kZstd = 0x8000;

struct Header {
    uint32_t magic;
    uint16_t version, header_bytes;
    uint64_t bytes;
};

struct Entry {
    uint16_t kind, version;
    uint32_t header_bytes;
    uint64_t padded_bytes;
    uint32_t compressed_bytes, options;
    uint16_t minor, major;
    uint32_t arch, name_offset, name_bytes;
    uint64_t flags, zero, plain_bytes;
};
static_assert(sizeof(Entry) == 64);

template <class T>
T read(const char* at) {
    T x;
    std::memcpy(&x, at, sizeof x);
    return x;
}

[[noreturn]] void corrupt() { throw Error(invalid_image, "a compressed PTX in the fatbin is corrupt"); }

// The LZ4 block format: literals, then a match that may overlap what it writes.
std::string lz4(const char* from, size_t bytes, size_t plain_bytes) {
    const auto* in = reinterpret_cast<const unsigned char*>(from);
    const auto* end = in + bytes;
    std::string out;
    out.reserve(plain_bytes);
    auto length = [&](size_t n) {
        if (n != 15) return n;
        unsigned char more = 255;
        while (more == 255) {
            if (in >= end) corrupt();
            n += more = *in++;
        }
        return n;
    };
    while (in < end) {
        const unsigned token = *in++;
        const size_t literals = length(token >> 4);
        if (literals > static_cast<size_t>(end - in) || out.size() + literals > plain_bytes) corrupt();
        out.append(reinterpret_cast<const char*>(in), literals);
        in += literals;
        if (in >= end || out.size() == plain_bytes) break;
        if (end - in < 2) corrupt();
        const size_t offset = in[0] | static_cast<size_t>(in[1]) << 8;
        in += 2;
        size_t match = length(token & 15) + 4;
        if (offset == 0 || offset > out.size() || out.size() + match > plain_bytes) corrupt();
        for (size_t at = out.size() - offset; match > 0; --match) out.push_back(out[at++]);
    }
    if (out.size() != plain_bytes) corrupt();
    return out;
}

}  // namespace

std::string ptx_of_image(const void* image) {
    const char* at = static_cast<const char*>(image);
    if (read<uint32_t>(at) == kWrapper) at = read<const char*>(at + 8);
    if (read<uint32_t>(at) != kFatbin) {
        const std::string text(at, strnlen(at, 64));
        if (text.find_first_not_of(" \t\r\n") == std::string::npos ||
            (text.find(".version") == std::string::npos && text.find("//") == std::string::npos))
            throw Error(invalid_image, "an image that is neither PTX nor a fatbin (machine code can't be emulated)");
        return at;
    }
    const auto header = read<Header>(at);
    const char* end = at + header.header_bytes + header.bytes;
    std::string why = "the fatbin has no PTX";
    std::string best;
    uint32_t best_arch = 0;
    for (const char* e = at + header.header_bytes; e + sizeof(Entry) <= end;) {
        const auto entry = read<Entry>(e);
        const char* data = e + entry.header_bytes;
        if (entry.padded_bytes > static_cast<uint64_t>(end - data)) throw Error(invalid_image, "the fatbin is cut off");
        if (entry.kind == kPtxKind && entry.arch >= best_arch) {
            if (entry.flags & kZstd)
                why = "the fatbin's PTX is compressed by zstd: build it with nvcc --compress-mode=speed";
            else if (entry.flags & kLz4)
                best = lz4(data, entry.compressed_bytes, entry.plain_bytes), best_arch = entry.arch;
            else
                best = std::string(data, entry.padded_bytes), best_arch = entry.arch;
        }
        e = data + entry.padded_bytes;
    }
    if (best.empty()) throw Error(no_binary_for_gpu, why);
    return best;
}

}  // namespace emu
