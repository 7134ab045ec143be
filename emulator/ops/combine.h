// The operations of atomics on memory, a run of elements at a time: for reductions that copies carry out.
#pragma once

#include "../decode/builder.h"

namespace emu::ops {

// Null if there is no such operation on this type.
Combine find_combine(Name op, Type t);

}  // namespace emu::ops
