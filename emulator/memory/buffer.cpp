#include "buffer.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <new>

namespace emu {

namespace {

constexpr size_t kMostKept = size_t{256} << 20;
constexpr std::align_val_t kAlignment{64};

std::mutex mutex;
std::multimap<size_t, char*>& spare() {
    static auto* map = new std::multimap<size_t, char*>();  // threads may end after the statics
    return *map;
}
size_t spare_bytes = 0;

}  // namespace

Buffer::Buffer(size_t bytes) : bytes_(bytes), kept_(std::max<size_t>(bytes, 64)) {
    {
        const std::lock_guard lock(mutex);
        const auto it = spare().lower_bound(kept_);
        if (it != spare().end() && it->first <= 4 * kept_) {
            kept_ = it->first, data_ = it->second;
            spare_bytes -= kept_;
            spare().erase(it);
            return;
        }
    }
    data_ = static_cast<char*>(::operator new(kept_, kAlignment));
}

Buffer::~Buffer() {
    if (data_ == nullptr) return;
    {
        const std::lock_guard lock(mutex);
        if (spare_bytes + kept_ <= kMostKept) {
            spare().emplace(kept_, data_);
            spare_bytes += kept_;
            return;
        }
    }
    ::operator delete(data_, kAlignment);
}

}  // namespace emu
