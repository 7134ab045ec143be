// Calls of device functions while lanes are in them. Groups that came by the same calls share a frame; frames that live
// at the same time lie apart.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "../decode/code.h"
#include "../memory/buffer.h"

namespace emu {

class Frames;

// One active call.
struct Frame {
    const Code* code = nullptr;
    const Inst* back = nullptr;  // where the caller goes on
    const Call* call = nullptr;
    Frame* caller = nullptr;
    uint32_t depth = 0;  // calls above it
    uint32_t stack = 0;  // bytes of a thread's stack in front of it
    Buffer registers;
    size_t place = 0;  // of the registers, as if those of all frames of the warp lay one after the other

    uint32_t* word(Ref r) const { return reinterpret_cast<uint32_t*>(registers.data() + (r & ~3u)); }

    Frames* home = nullptr;
    uint32_t holds = 0;                                  // groups that are in it, and calls from it
    Frame *newest_callee = nullptr, *sibling = nullptr;  // the calls from it, one behind the other
};

// What keeps a frame, and the callers above it.
class Hold {
  public:
    Hold() = default;
    explicit Hold(Frame* f) : frame_(f) { ++f->holds; }
    Hold(const Hold& o) : frame_(o.frame_) {
        if (frame_ != nullptr) ++frame_->holds;
    }
    Hold(Hold&& o) noexcept : frame_(std::exchange(o.frame_, nullptr)) {}
    Hold& operator=(Hold o) noexcept {
        std::swap(frame_, o.frame_);
        return *this;
    }
    ~Hold() {
        if (frame_ != nullptr && --frame_->holds == 0) give_back(frame_);
    }

    Frame* operator->() const { return frame_; }
    Frame& operator*() const { return *frame_; }
    bool operator==(const Hold& o) const { return frame_ == o.frame_; }

  private:
    static void give_back(Frame* f);

    Frame* frame_ = nullptr;
};

// The frames of a warp. What is given back serves the next call of the same function.
class Frames {
  public:
    Hold enter(const Code& code, Frame* caller, const Call* call, const Inst* back);
    size_t place(const char* registers) const;  // of a frame

  private:
    friend class Hold;

    std::vector<std::unique_ptr<Frame>> all_;
    std::vector<std::vector<Frame*>> spare_;  // by the function's number
    size_t places_ = 0;
};

}  // namespace emu
