# The emulator: a library with the functions of CUDA's driver API, which runs the kernels' PTX on the CPU.
#
# It uses AVX2, FMA and F16C throughout and says so when the processor lacks them.

function(nk_add_emulator)
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
    message(STATUS "emulator: only for x86-64; building without it")
    return()
  endif()
  find_package(Threads REQUIRED)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/emulator/*/*.cpp)
  add_library(emulator MODULE ${sources})
  target_compile_features(emulator PRIVATE cxx_std_20)
  # Rounding modes are switched at run time, and nothing is fused or reordered that PTX does not fuse or reorder.
  target_compile_options(emulator PRIVATE -O2 -ftree-vectorize -fvect-cost-model=dynamic -march=x86-64-v3
                         -ffp-contract=off -fno-math-errno -fno-trapping-math -Wall -Wextra)
  target_precompile_headers(emulator PRIVATE <algorithm> <array> <atomic> <chrono> <cmath> <cstring> <deque> <immintrin.h>
                            <map> <memory> <mutex> <span> <sstream> <string> <thread> <unordered_map> <vector>)
  # Files of one room are compiled together, ten at a time: a third less work. The longest stays alone, and so do two
  # whose own names are others' too.
  foreach(room checks decode driver exec memory ops ptx)
    set(files ${sources})
    list(FILTER files INCLUDE REGEX "/emulator/${room}/")
    list(FILTER files EXCLUDE REGEX "/(ops/floating|driver/device|checks/shadow)\\.cpp$")
    set(index 0)
    foreach(file ${files})
      math(EXPR group "${index} / 10")
      set_source_files_properties(${file} PROPERTIES UNITY_GROUP ${room}_${group})
      math(EXPR index "${index} + 1")
    endforeach()
  endforeach()
  set_target_properties(emulator PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
  set_target_properties(emulator PROPERTIES OUTPUT_NAME neurokern_emulator CXX_VISIBILITY_PRESET hidden
                        VISIBILITY_INLINES_HIDDEN ON)
  target_link_libraries(emulator PRIVATE Threads::Threads)
  install(TARGETS emulator LIBRARY DESTINATION neurokern/_emulator)
endfunction()
