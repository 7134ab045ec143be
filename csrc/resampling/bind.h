// The parts of what this family binds.
#pragma once

#include <pybind11/pybind11.h>

namespace nk {

void register_grid_sample(pybind11::handle m);

}  // namespace nk
