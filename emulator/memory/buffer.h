// Memory of blocks and warps, aligned to 64 bytes and unset. It is kept for the next launch when it is given up: fresh
// pages of the system cost more than a small launch.
#pragma once

#include <cstddef>
#include <utility>

namespace emu {

class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(size_t bytes);
    Buffer(Buffer&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)), kept_(other.kept_) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_), std::swap(bytes_, other.bytes_), std::swap(kept_, other.kept_);
        return *this;
    }
    ~Buffer();

    char* data() const { return data_; }
    size_t size() const { return bytes_; }

  private:
    char* data_ = nullptr;
    size_t bytes_ = 0;  // asked for
    size_t kept_ = 0;   // there are
};

}  // namespace emu
