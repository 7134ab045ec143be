// Scratch memory for kernels, which allocate none themselves.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

namespace nk::cpu {

// One for each calling thread (thread_local): grows as needed and is kept; above the cap it goes back after the call.
class Workspace {
  public:
    static constexpr size_t kKeep = size_t(64) << 20;
    char* get(size_t bytes) {
        if (bytes > size_) {
            release();
            data_ = static_cast<char*>(std::aligned_alloc(64, (bytes + 4095) / 4096 * 4096));
            if (data_ == nullptr) throw std::bad_alloc();
            size_ = (bytes + 4095) / 4096 * 4096;
        }
        return data_;
    }
    void trim() {
        if (size_ > kKeep) release();
    }
    ~Workspace() { release(); }

  private:
    void release() {
        std::free(data_);
        data_ = nullptr;
        size_ = 0;
    }
    char* data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace nk::cpu
