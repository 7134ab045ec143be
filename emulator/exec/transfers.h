// Asynchronous copies of a cluster that are under way: bulk and tensor copies, st.async and red.async, and arrivals
// that wait for cp.async. Each lands as late as the rules allow: when a wait can end only if it has. With a shuffle it
// may land at any moment before.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "../decode/forms.h"
#include "mbarrier.h"
#include "random.h"
#include "warp.h"

namespace emu {

struct Cluster;

struct Piece {
    char* global;
    uint32_t offset, bytes;  // in the tile, before it is swizzled
};

struct Transfer {
    enum Kind : uint8_t { to_shared, between, to_global, values, arrival } kind = to_shared;
    const Inst* inst = nullptr;
    Warp* warp = nullptr;
    int lane = 0;
    uint32_t bytes = 0;       // in shared memory
    uint32_t blocks = 0;      // ranks where it has to land still; to_global: not 0 until it is done
    uint32_t shared = 0;      // where, in each of them; of to_global the source
    Place source;             // of `between`
    uint32_t barrier = 0;     // where, in each of them
    uint32_t group = 0;       // of to_global
    uint64_t serial = 0;      // of an arrival: the copies that it waits for are older
    Clocks::Knowledge knows;  // of an arrival
    uint8_t swizzle = 0;      // log2 of its 16-byte chunks: 0, 1, 2, 3
    bool fills = false;       // bytes outside of the tensor
    bool read = false;        // to_global: the source lies in `data`
    bool waited = false;      // to_global: its thread waited until it was read
    uint8_t type = 0;         // of a tensor's elements, where the copy converts or fills
    Combine combine = nullptr;
    std::vector<Piece> pieces;
    std::vector<char> data;
};

class Transfers {
  public:
    void begin(Cluster& c);
    void issue(Transfer t);
    // A wait tests this mbarrier: whether its phase is complete now.
    bool demand(Place at);
    // Bulk groups of the lanes, but for the latest ones: their sources are read, and if not `read_only` they are done.
    void wait_groups(Warp& w, uint32_t lanes, uint32_t pending, bool read_only);
    void maybe_land(Random& random);
    void refuse_signals(Warp& w, const Inst& i, int lane, Place at) const;
    void block_exits(Block& b);
    void finish();  // of the cluster: what is read is written
    uint32_t under_way(Place at, uint32_t& arrivals) const;

  private:
    void land(Transfer& t, uint32_t rank);
    void land_tile(const Transfer& t, char* to);
    void read_source(Transfer& t);
    void write_global(Transfer& t);
    void drop_done();

    Cluster* cluster_ = nullptr;
    std::vector<Transfer> list_;
};

// Calls f(offset as stored in shared memory, offset in the tile, bytes) for what lies together.
template <class F>
void for_chunks(uint32_t shared, uint32_t offset, uint32_t bytes, uint32_t swizzle, F f) {
    if (swizzle == 0) return f(shared + offset, offset, bytes);
    const uint32_t mask = (1u << swizzle) - 1;
    while (bytes != 0) {
        const uint32_t at = shared + offset, n = std::min(bytes, 16 - at % 16);
        f(at ^ (at >> 7 & mask) << 4, offset, n);
        offset += n, bytes -= n;
    }
}

// The data of one lane of a cp.async goes where it is to go.
inline void move_copy(const AsyncCopy& c, char* shared, int lane) {
    const auto k = static_cast<size_t>(lane);
    char* to = shared + c.shared[k];
    std::memcpy(to, c.from[k], c.valid[k]);
    std::memset(to + c.valid[k], 0, c.bytes - c.valid[k]);
}
// One lane of it lands. `as_of`: its writes count as made then (0: now).
void land_copy(Warp& w, AsyncCopy& c, int lane, Stamp as_of);

}  // namespace emu
