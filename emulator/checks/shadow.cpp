#include "shadow.h"

#include <algorithm>
#include <numeric>

namespace emu {

void SharedShadow::begin(uint32_t bytes, Clocks& clocks) {
    bytes_.assign(bytes, Byte{});
    clocks_ = &clocks;
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
constexpr const char* kUnwaited =
    "touches shared memory that an asynchronous copy wrote, without having waited for its mbarrier (a wait is missing)";
constexpr const char* kObjectTouched = "touches an mbarrier by an access that is no mbarrier instruction";
constexpr const char* kWriteEarly =
    "writes shared memory that an asynchronous copy is still on its way to (a wait is missing)";
constexpr const char* kSource = "writes shared memory that a bulk copy still reads (a wait for it is missing)";
constexpr const char* kProxyRead =
    "makes the asynchronous proxy read what the generic proxy wrote, with no fence.proxy.async between";
constexpr const char* kProxyWrite =
    "makes the asynchronous proxy write where the generic proxy wrote, with no fence.proxy.async between";
}  // namespace

const char* SharedShadow::race(Stamp with, const char* what) {
    if (clocks_->is_agent(with)) return kUnwaited;
    other_ = with & Clocks::kIndexMask;
    return what;
}

const char* SharedShadow::busy(uint8_t state, const char* early) {
    return state & kInFlight ? early : state & kObject ? kObjectTouched : kSource;
}

const char* SharedShadow::read(uint32_t warp, uint32_t address, uint32_t bytes, bool strong) {
    const Stamp stamp = clocks_->stamp(warp);
    const uint32_t* seen = clocks_->seen(warp);
    other_ = warp, both_wrote_ = false;
    for (uint32_t k = address; k < address + bytes; ++k) {
        Byte& b = bytes_[k];
        culprit_ = k;
        if (b.state & (kInFlight | kObject)) return busy(b.state, kEarly);
        if (!(b.state & kWritten)) return kUnwritten;
        const bool both = strong && (b.state & kAtomic);
        if (!both && !Clocks::ordered(b.writer, warp, seen)) return race(b.writer, kReadRace);
        if (strong || b.reader == stamp) continue;
        // two readers are remembered: the latest, and the latest of another warp
        if ((b.reader & Clocks::kIndexMask) != warp) b.reader2 = b.reader;
        b.reader = stamp;
    }
    return nullptr;
}

inline const char* SharedShadow::store(Stamp stamp, const uint32_t* seen, Byte& b, bool atomic) {
    const uint32_t warp = stamp & Clocks::kIndexMask;
    if (b.state & kBusy) return busy(b.state, kWriteEarly);
    if (!Clocks::ordered(b.writer, warp, seen) && !(atomic && (b.state & kAtomic))) {
        both_wrote_ = !clocks_->is_agent(b.writer);
        return race(b.writer, kWriteRace);
    }
    if (!Clocks::ordered(b.reader, warp, seen)) return race(b.reader, kWriteReadRace);
    if (!Clocks::ordered(b.reader2, warp, seen)) return race(b.reader2, kWriteReadRace);
    b.writer = stamp;
    b.reader = b.reader2 = 0;
    b.state = static_cast<uint8_t>((b.state & ~kAtomic) | kWritten | (atomic ? kAtomic : 0));
    return nullptr;
}

const char* SharedShadow::write(uint32_t warp, uint32_t address, uint32_t bytes, bool strong) {
    const Stamp stamp = clocks_->stamp(warp);
    const uint32_t* seen = clocks_->seen(warp);
    other_ = warp, both_wrote_ = false;
    for (culprit_ = address; culprit_ < address + bytes; ++culprit_)
        if (const char* wrong = store(stamp, seen, bytes_[culprit_], strong)) return wrong;
    return nullptr;
}

const char* SharedShadow::atomic(uint32_t warp, uint32_t address, uint32_t bytes) {
    const Stamp stamp = clocks_->stamp(warp);
    const uint32_t* seen = clocks_->seen(warp);
    other_ = warp, both_wrote_ = false;
    for (culprit_ = address; culprit_ < address + bytes; ++culprit_) {
        Byte& b = bytes_[culprit_];
        if (b.state & kInFlight) return kEarly;
        if (!(b.state & kWritten)) return kUnwritten;
        if (const char* wrong = store(stamp, seen, b, true)) return wrong;
    }
    return nullptr;
}

void SharedShadow::set_in_flight(uint32_t address, uint32_t bytes) {
    for (uint32_t k = address; k < address + bytes; ++k) bytes_[k].state |= kInFlight;
}

void SharedShadow::landed(uint32_t address, uint32_t bytes) {
    for (uint32_t k = address; k < address + bytes; ++k) bytes_[k].state &= static_cast<uint8_t>(~kInFlight);
}

void SharedShadow::set_written(uint32_t address, uint32_t bytes) {
    for (uint32_t k = address; k < address + bytes; ++k) bytes_[k].state |= kWritten;
}

void SharedShadow::set_writer(Stamp by, uint32_t address, uint32_t bytes) {
    for (uint32_t k = address; k < address + bytes; ++k) bytes_[k].writer = by;
}

const char* SharedShadow::async_read(uint32_t warp, uint32_t address, uint32_t bytes) {
    if (const char* wrong = read(warp, address, bytes)) return wrong;
    for (culprit_ = address; culprit_ < address + bytes; ++culprit_)
        if (const Stamp s = bytes_[culprit_].writer; !clocks_->fenced(s, warp)) return race(s, kProxyRead);
    return nullptr;
}

const char* SharedShadow::late_read(uint32_t warp, const Clocks::Knowledge& known, uint32_t address, uint32_t bytes) {
    const Stamp stamp = clocks_->stamp(warp);
    const auto knows = [](const std::vector<uint32_t>& v, Stamp s) {
        const uint32_t who = s & Clocks::kIndexMask;
        return s == 0 || (who < v.size() && s >> Clocks::kIndexBits <= v[who]);
    };
    Stamp good = 0;
    for (uint32_t k = address; k < address + bytes; ++k) {
        Byte& b = bytes_[k];
        if (b.writer != good || (b.state & (kWritten | kInFlight | kObject)) != kWritten) {
            culprit_ = k, other_ = warp;
            if (b.state & (kInFlight | kObject)) return busy(b.state, kEarly);
            if (!(b.state & kWritten)) return kUnwritten;
            if (!knows(known.seen, b.writer)) return race(b.writer, kLateRace);
            if (!clocks_->is_agent(b.writer) && !knows(known.fenced[Clocks::kProxyFence], b.writer))
                return race(b.writer, kNoProxyFence);
            good = b.writer;
        }
        if (b.reader == stamp) continue;
        if ((b.reader & Clocks::kIndexMask) != warp) b.reader2 = b.reader;
        b.reader = stamp;
    }
    return nullptr;
}

const char* SharedShadow::async_write(uint32_t warp, uint32_t address, uint32_t bytes, bool proxy, bool combines) {
    other_ = warp;
    for (culprit_ = address; culprit_ < address + bytes; ++culprit_) {
        Byte& b = bytes_[culprit_];
        if (b.state & (combines ? kReading | kObject : kBusy)) return busy(b.state, kWriteEarly);
        if (combines && !(b.state & kWritten)) return kUnwritten;
        if (!clocks_->ordered(b.writer, warp) && !(combines && (b.state & kAtomic))) return race(b.writer, kWriteRace);
        if (!clocks_->ordered(b.reader, warp)) return race(b.reader, kWriteReadRace);
        if (!clocks_->ordered(b.reader2, warp)) return race(b.reader2, kWriteReadRace);
        if (proxy && !clocks_->fenced(b.writer, warp)) return race(b.writer, kProxyWrite);
        b.state = static_cast<uint8_t>((b.state & ~kAtomic) | kInFlight | (combines ? kAtomic : 0));
    }
    return nullptr;
}

void SharedShadow::set_reading(uint32_t address, uint32_t bytes, bool on) {
    for (uint32_t k = address; k < address + bytes; ++k)
        bytes_[k].state = static_cast<uint8_t>(on ? bytes_[k].state | kReading : bytes_[k].state & ~kReading);
}

void SharedShadow::async_landed(Stamp by, uint32_t address, uint32_t bytes) {
    for (uint32_t k = address; k < address + bytes; ++k) {
        Byte& b = bytes_[k];
        b.writer = by, b.reader = b.reader2 = 0;
        b.state = static_cast<uint8_t>((b.state & ~kInFlight) | kWritten);
    }
}

void SharedShadow::set_object(uint32_t address, bool on) {
    for (uint32_t k = address; k < address + 8; ++k) {
        Byte& b = bytes_[k];
        b.state = static_cast<uint8_t>(on ? b.state | kObject : b.state & ~(kObject | kWritten));
    }
}

bool SharedShadow::finished(uint32_t first, uint32_t count) {
    const auto alien = [&](Stamp s) {
        const uint32_t who = s & Clocks::kIndexMask;
        if (s == 0 || clocks_->is_agent(s) || (who >= first && who < first + count)) return false;
        for (uint32_t w = first; w < first + count; ++w)
            if (clocks_->ordered(s, w)) return false;
        other_ = who;
        return true;
    };
    for (culprit_ = 0; culprit_ < bytes_.size(); ++culprit_) {
        const Byte& b = bytes_[culprit_];
        if (alien(b.writer) || alien(b.reader) || alien(b.reader2)) return false;
    }
    return true;
}

}  // namespace emu
