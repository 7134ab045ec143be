// One number, rounded to a type.
#include "register.h"
#include "storage.h"

namespace nk::NK_ISA {

namespace {

template <class T>
void round_one(void* to, double value) {
    store(static_cast<T*>(to), compute_vec<T>(static_cast<scalar_for<T>>(value)), 1);
}

}  // namespace

void register_round(cpu::ElementwiseEntries& e) {
    e.round_one[0] = round_one<storage<0>::type>;
    e.round_one[1] = round_one<storage<1>::type>;
    e.round_one[2] = round_one<storage<2>::type>;
    e.round_one[3] = round_one<storage<3>::type>;
}

}  // namespace nk::NK_ISA
