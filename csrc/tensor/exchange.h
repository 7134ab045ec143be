// The DLPack exchange API of the tensors that were read, and what goes wrong in it.
#pragma once

#include <string>

#include "tensor/dlpack.h"

namespace nk {

// Of the tensors that were last read; null before the first one.
const dlpack::ExchangeApi* known_exchange();

// What Python says went wrong, cleared; torch appends its C++ stack after the first line.
std::string take_python_error();

}  // namespace nk
