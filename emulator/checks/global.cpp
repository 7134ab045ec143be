#include "global.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace emu {

namespace {
constexpr const char* kUnwritten = "reads global memory that was never written";
constexpr const char* kReadRace = "reads global memory that was written with nothing between that orders it (a race)";
constexpr const char* kWriteRace = "writes global memory that was written with nothing between that orders it (a race)";
constexpr const char* kWriteReadRace =
    "writes global memory that was read with nothing between that orders it (a race)";
}  // namespace

GlobalShadow::Page::Page(uint64_t n) : cells((kPageBytes >> 2) * sizeof(Cell)), number(n) {
    std::memset(cells.data(), 0, cells.size());
    some_unwritten = emu::unwritten().of_page(n, unwritten);
}

void GlobalShadow::Page::refine(uint32_t to) {
    Buffer finer((kPageBytes >> to) * sizeof(Cell));
    const auto* from = reinterpret_cast<const Cell*>(cells.data());
    auto* cell = reinterpret_cast<Cell*>(finer.data());
    for (uint64_t k = 0; k < kPageBytes >> to; ++k) cell[k] = from[k >> (shift - to)];
    cells = std::move(finer), shift = to;
}

void GlobalShadow::begin(const Ranges& ranges, bool races) {
    races_ = races;
    for (const Range& r : ranges.list()) {
        auto a = std::make_unique<Area>();
        a->begin = r.begin, a->end = r.end;
        a->pages = std::vector<std::atomic<Page*>>((r.end - 1) / kPageBytes - r.begin / kPageBytes + 1);
        areas_.push_back(std::move(a));
    }
}

void GlobalShadow::end() {
    for (const auto& p : pages_)
        if (p->some_unwritten) emu::unwritten().keep(p->number, p->unwritten);
}

GlobalShadow::Area* GlobalShadow::area(uint64_t address) {
    const auto it = std::upper_bound(areas_.begin(), areas_.end(), address,
                                     [](uint64_t x, const std::unique_ptr<Area>& a) { return x < a->end; });
    return it == areas_.end() || address < (*it)->begin ? nullptr : it->get();
}

GlobalShadow::Page& GlobalShadow::page(Area& a, uint64_t number) {
    std::atomic<Page*>& slot = a.pages[number - a.begin / kPageBytes];
    if (Page* p = slot.load(std::memory_order_acquire)) return *p;
    const std::lock_guard lock(mutex_);
    if (Page* p = slot.load(std::memory_order_acquire)) return *p;
    pages_.push_back(std::make_unique<Page>(number));
    slot.store(pages_.back().get(), std::memory_order_release);
    return *pages_.back();
}

// One access to one page, which is locked as long.
class GlobalShadow::Visit {
  public:
    Visit(Page& p, const GlobalOrder& order, uint32_t warp, GlobalStamp strong, bool races)
        : page_(p), order_(order), warp_(warp), stamp_(races ? order.stamp(warp) | strong : 0) {
        while (p.busy.test_and_set(std::memory_order_acquire)) {
        }
    }
    ~Visit() { page_.busy.clear(std::memory_order_release); }
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;

    Finding touch(uint64_t address, uint64_t bytes, Touch kind) {
        const uint64_t first = address % kPageBytes;
        if (page_.some_unwritten)
            if (Finding f = initialization(address, first, bytes, kind); f.what != nullptr) return f;
        if (stamp_ == 0) return {};
        const auto aligned = static_cast<uint32_t>(std::countr_zero(first | bytes | 4));
        if (aligned < page_.shift) page_.refine(aligned);
        auto* cells = reinterpret_cast<Cell*>(page_.cells.data());
        for (uint64_t k = first >> page_.shift; k < (first + bytes) >> page_.shift; ++k) {
            address_ = address - first + (k << page_.shift);
            const Finding f = kind == Touch::read ? read(cells[k]) : write(cells[k]);
            if (f.what != nullptr) return f;
        }
        return {};
    }

  private:
    Finding initialization(uint64_t address, uint64_t first, uint64_t bytes, Touch kind) {
        for (uint64_t k = first; k < first + bytes; ++k) {
            uint64_t& word = page_.unwritten[k / 64];
            const uint64_t bit = uint64_t{1} << k % 64;
            if ((word & bit) && kind != Touch::write) return {kUnwritten, address - first + k, 0, false};
            word &= ~bit;
        }
        return {};
    }

    bool conflict(GlobalStamp other) const {
        if (other == 0 || same_warp(other, stamp_)) return false;
        if ((other & stamp_ & kStrong) && (order_.same_block(other, stamp_) || (other & stamp_ & kDeviceWide)))
            return false;
        return !order_.sees(warp_, other, address_);
    }

    Finding read(Cell& c) const {
        if (conflict(c.writer)) return {kReadRace, address_, c.writer, false};
        if (c.reader == stamp_) return {};
        const GlobalStamp old = c.reader;
        c.reader = stamp_;
        if (old == 0) return {};
        if (cluster_of(old) != cluster_of(stamp_))
            c.elsewhere = old, c.beside = 0;
        else if (warp_of(old) != warp_)
            c.beside = old;
        return {};
    }

    Finding write(Cell& c) const {
        if (conflict(c.writer)) {
            const bool here = order_.same_block(c.writer, stamp_) && !(stamp_ & kStrong);
            return {kWriteRace, address_, c.writer, here};
        }
        for (const GlobalStamp r : {c.reader, c.beside, c.elsewhere})
            if (conflict(r)) return {kWriteReadRace, address_, r, false};
        c = {stamp_, 0, 0, 0};
        return {};
    }

    Page& page_;
    const GlobalOrder& order_;
    const uint32_t warp_;
    const GlobalStamp stamp_;
    uint64_t address_ = 0;
};

Finding GlobalShadow::touch(const GlobalOrder& order, uint32_t warp, uint64_t address, uint64_t bytes, Touch kind,
                            GlobalStamp strong) {
    for (const uint64_t end = address + bytes; address < end;) {
        Area* a = area(address);
        if (a == nullptr) return {};  // out of bounds, and nobody asked for that to be found
        const uint64_t number = address / kPageBytes, stop = std::min({end, a->end, (number + 1) * kPageBytes});
        Visit visit(page(*a, number), order, warp, strong, races_);
        if (const Finding f = visit.touch(address, stop - address, kind); f.what != nullptr) return f;
        address = stop;
    }
    return {};
}

}  // namespace emu
