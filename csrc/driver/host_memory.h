// The driver's side of tensor/host_memory.h.
#pragma once

namespace nk::driver {

// Whether the driver in force is to be told of the host's memory that a call works on.
void listen_to_host_memory(bool listen);

}  // namespace nk::driver
