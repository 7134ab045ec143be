// Which functions of a module may call which. A call by address may go to each function whose address is taken.
#pragma once

#include <unordered_map>
#include <vector>

#include "../ptx/module.h"

namespace emu {

class CallGraph {
  public:
    explicit CallGraph(const ptx::Module& m);

    // What a function may call, and what that may call.
    std::vector<const ptx::Function*> reached(const ptx::Function& from) const;
    bool recursive(const ptx::Function& f) const;

  private:
    struct Calls {
        std::vector<const ptx::Function*> known;
        bool by_address = false;
    };
    Calls calls_of(const ptx::Function& f);
    const ptx::Function* function(ptx::Name name) const;
    void take_address(ptx::Name name);

    std::unordered_map<ptx::Name, const ptx::Function*> named_;
    std::unordered_map<const ptx::Function*, Calls> calls_;
    std::vector<const ptx::Function*> taken_;
};

}  // namespace emu
