#include "activation/check.h"

#include "tensor/check.h"

namespace nk {

Activation checked_activation(const char* op, int act) {
    if (act < 0 || act >= kActivations)
        fail_value(op, "argument act is ", act, ", expected an id from 0 to ", kActivations - 1);
    return static_cast<Activation>(act);
}

void check_tensors(const char* op, std::initializer_list<Named> outs, std::initializer_list<Named> ins, bool in_place) {
    const Named& first = *outs.begin();
    check_floating(op, first.name, first.view);
    for (const Named& o : outs) {
        if (&o != &first) check_like(op, o.name, o.view, first.name, first.view);
        check_writable(op, o.name, o.view);
    }
    for (const Named& i : ins) check_like(op, i.name, i.view, first.name, first.view);
    for (const Named& o : outs)
        for (const Named& i : ins) check_no_overlap(op, o.name, o.view, i.name, i.view, in_place);
    if (outs.size() == 2) {
        const Named& second = *(outs.begin() + 1);
        check_no_overlap(op, second.name, second.view, first.name, first.view, false);
    }
}

}  // namespace nk
