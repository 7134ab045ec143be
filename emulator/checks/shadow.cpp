#include "shadow.h"

#include <algorithm>

namespace emu {

void SharedShadow::begin(uint32_t bytes, uint32_t warps) {
    bytes_.assign(bytes, Byte{});
    for (uint32_t w = 0; w < warps && w < kWarps; ++w) {
        clock_[w].fill(0), fenced_[w].fill(0);
        clock_[w][w] = 1;
    }
}

namespace {
constexpr const char* kEarly =
    "reads shared memory that an asynchronous copy is still on its way to (a wait is missing)";
constexpr const char* kUnwritten = "reads shared memory that was never written";
constexpr const char* kReadRace = "reads shared memory that another warp wrote with no barrier between (a race)";
constexpr const char* kLateRace =
    "reads shared memory that was written while it was in flight, or by another warp with no barrier between (a race)";
constexpr const char* kNoProxyFence =
    "reads shared memory that was written by ordinary stores, with no fence.proxy.async behind them";
constexpr const char* kWriteRace = "writes shared memory that another warp wrote with no barrier between (a race)";
constexpr const char* kWriteReadRace = "writes shared memory that another warp read with no barrier between (a race)";
}  // namespace

const char* SharedShadow::read(uint32_t warp, uint32_t address, uint32_t bytes) {
    const uint32_t stamp = clock_[warp][warp] << 5 | warp;
    other_ = warp;
    for (uint32_t k = address; k < address + bytes; ++k) {
        Byte& b = bytes_[k];
        culprit_ = k;
        if (b.state & kInFlight) return kEarly;
        if (!(b.state & kWritten)) return kUnwritten;
        if (!ordered(b.writer, warp)) return other_ = b.writer & 31, kReadRace;
        if (b.reader == stamp) continue;
        // two readers are remembered: the latest, and the latest of another warp
        if ((b.reader & 31) != warp) b.reader2 = b.reader;
        b.reader = stamp;
    }
    return nullptr;
}

const char* SharedShadow::store(uint32_t warp, Byte& b, bool atomic) {
    if (!ordered(b.writer, warp) && !(atomic && (b.state & kAtomic))) return other_ = b.writer & 31, kWriteRace;
    if (!ordered(b.reader, warp)) return other_ = b.reader & 31, kWriteReadRace;
    if (!ordered(b.reader2, warp)) return other_ = b.reader2 & 31, kWriteReadRace;
    b.writer = clock_[warp][warp] << 5 | warp;
    b.reader = b.reader2 = 0;
    b.state = static_cast<uint8_t>((b.state & ~kAtomic) | kWritten | (atomic ? kAtomic : 0));
    return nullptr;
}

const char* SharedShadow::write(uint32_t warp, uint32_t address, uint32_t bytes) {
    other_ = warp;
    for (culprit_ = address; culprit_ < address + bytes; ++culprit_)
        if (const char* wrong = store(warp, bytes_[culprit_], false)) return wrong;
    return nullptr;
}

const char* SharedShadow::atomic(uint32_t warp, uint32_t address, uint32_t bytes) {
    other_ = warp;
    for (culprit_ = address; culprit_ < address + bytes; ++culprit_) {
        Byte& b = bytes_[culprit_];
        if (b.state & kInFlight) return kEarly;
        if (!(b.state & kWritten)) return kUnwritten;
        if (const char* wrong = store(warp, b, true)) return wrong;
    }
    return nullptr;
}

void SharedShadow::issue_late(Known& k, uint32_t warp) {
    for (uint32_t w = 0; w < kWarps; ++w) {
        k.seen[w] = std::min(k.seen[w], clock_[warp][w]);
        k.fenced[w] = std::min(k.fenced[w], fenced_[warp][w]);
    }
    ++clock_[warp][warp];
}

void SharedShadow::learn_late(uint32_t warp, uint32_t reader, uint32_t time) {
    clock_[warp][reader] = std::max(clock_[warp][reader], time);
}

const char* SharedShadow::read_late(uint32_t warp, const Known& known, uint32_t address, uint32_t bytes) {
    const uint32_t stamp = clock_[warp][warp] << 5 | warp;
    uint32_t good = 0;
    for (uint32_t k = address; k < address + bytes; ++k) {
        Byte& b = bytes_[k];
        if (b.writer != good || (b.state & (kWritten | kInFlight)) != kWritten) {
            culprit_ = k, other_ = warp;
            if (b.state & kInFlight) return kEarly;
            if (!(b.state & kWritten)) return kUnwritten;
            if (b.writer >> 5 > known.seen[b.writer & 31]) return other_ = b.writer & 31, kLateRace;
            if (b.writer >> 5 > known.fenced[b.writer & 31]) return other_ = b.writer & 31, kNoProxyFence;
            good = b.writer;
        }
        if (b.reader == stamp) continue;
        if ((b.reader & 31) != warp) b.reader2 = b.reader;
        b.reader = stamp;
    }
    return nullptr;
}

void SharedShadow::set_in_flight(uint32_t address, uint32_t bytes) {
    for (uint32_t k = address; k < address + bytes; ++k) bytes_[k].state |= kInFlight;
}

void SharedShadow::landed(uint32_t address, uint32_t bytes) {
    for (uint32_t k = address; k < address + bytes; ++k) bytes_[k].state &= static_cast<uint8_t>(~kInFlight);
}

void SharedShadow::proxy_fence(uint32_t warp) {
    for (uint32_t w = 0; w < kWarps; ++w) fenced_[warp][w] = std::max(fenced_[warp][w], clock_[warp][w]);
    ++clock_[warp][warp];
}

void SharedShadow::barrier(uint32_t warps) {
    const auto join = [warps](std::array<Clock, kWarps>& clocks) {
        Clock joined{};
        for (uint32_t w = 0; w < kWarps; ++w)
            if (warps >> w & 1)
                for (uint32_t k = 0; k < kWarps; ++k) joined[k] = std::max(joined[k], clocks[w][k]);
        for (uint32_t w = 0; w < kWarps; ++w)
            if (warps >> w & 1) clocks[w] = joined;
    };
    join(clock_), join(fenced_);
    for (uint32_t w = 0; w < kWarps; ++w)
        if (warps >> w & 1) ++clock_[w][w];
}

}  // namespace emu
