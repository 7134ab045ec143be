#include "frames.h"

#include <algorithm>

namespace emu {

Hold Frames::enter(const Code& code, Frame* caller, const Call* call, const Inst* back) {
    if (caller != nullptr)
        for (Frame* f = caller->newest_callee; f != nullptr; f = f->sibling)
            if (f->back == back && f->code == &code) return Hold(f);
    if (spare_.size() <= code.number) spare_.resize(code.number + 1);
    std::vector<Frame*>& spare = spare_[code.number];
    if (spare.empty()) {
        Frame* fresh = all_.emplace_back(std::make_unique<Frame>()).get();
        fresh->code = &code, fresh->home = this;
        fresh->registers = Buffer(code.register_bytes);
        fresh->place = places_, places_ += (code.register_bytes + 63) / 64 * 64;
        spare.push_back(fresh);
    }
    Frame* f = spare.back();
    spare.pop_back();
    f->call = call, f->back = back, f->caller = caller, f->newest_callee = nullptr;
    f->depth = 0, f->stack = 0;
    if (caller != nullptr) {
        ++caller->holds;
        f->sibling = std::exchange(caller->newest_callee, f);
        f->depth = caller->depth + 1, f->stack = caller->stack + caller->code->stack_bytes;
    }
    return Hold(f);
}

size_t Frames::place(const char* registers) const {
    const auto it = std::ranges::find_if(all_, [&](const auto& f) { return f->registers.data() == registers; });
    return it != all_.end() ? (*it)->place : 0;
}

void Hold::give_back(Frame* f) {
    while (f != nullptr) {
        Frame* caller = f->caller;
        if (caller != nullptr) {
            Frame** link = &caller->newest_callee;
            while (*link != f) link = &(*link)->sibling;
            *link = f->sibling;
        }
        f->home->spare_[f->code->number].push_back(f);
        f = caller != nullptr && --caller->holds == 0 ? caller : nullptr;
    }
}

}  // namespace emu
