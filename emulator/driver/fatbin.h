// The PTX in what cuModuleLoadData is given: PTX text, or a fatbin that holds some.
#pragma once

#include <string>

namespace emu {

// Throws Error (no_binary_for_gpu) when the image has no PTX that can be read.
std::string ptx_of_image(const void* image);

}  // namespace emu
