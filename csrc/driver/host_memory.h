// The driver's side of tensor/host_memory.h.
#pragma once

namespace nk::driver {

// From now on the emulator is told of the host's memory that a call within emulate() works on.
void listen_to_host_memory();

}  // namespace nk::driver
