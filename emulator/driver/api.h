// What the files with functions of the driver API share.
#pragma once

#include <functional>

#include "../error.h"

#define EMU_API extern "C" __attribute__((visibility("default")))

namespace emu {

// Runs f; what it throws becomes the code that is returned and the text that cuGetErrorString tells of it.
int guarded(const std::function<void()>& f);

}  // namespace emu
