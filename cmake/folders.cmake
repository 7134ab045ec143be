# What the build knows of csrc/ and kernels/cpu/ it learns from their folders; no list names them.
#
#   csrc/<folder>/*.cpp               compiled together, one batch a folder: headers cost more than the code
#   those with <pybind11/pybind11.h>  one batch together: what it has of functions takes four seconds wherever it is
#                                     included, and its types (pytypes.h, cast.h) one
#   csrc/<folder>/bind.cpp            defines nk::register_<folder>(module), which bindings.h declares and calls
#   kernels/cpu/<family>/entries.h    defines nk::cpu::<Family>Entries, a member of the CPU's table by cpu_families.h;
#                                     nk::<isa>::register_<family>(entries) fills it
#   kernels/cpu/<family>/*_avx512bf16.cpp   defines that function for the level in its name

function(nk_add_host_sources target)
  set(generated ${PROJECT_BINARY_DIR}/generated)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/*/*.cpp)
  set(declarations "")
  set(calls "")
  foreach(source ${sources})
    get_filename_component(folder ${source} DIRECTORY)
    get_filename_component(folder ${folder} NAME)
    file(STRINGS ${source} functions REGEX "<pybind11/(pybind11|stl).h>")
    if(functions)
      set(batch module)
    else()
      set(batch ${folder})
    endif()
    set_source_files_properties(${source} PROPERTIES UNITY_GROUP ${batch})
    if(source MATCHES "/bind\\.cpp$")
      string(APPEND declarations "void register_${folder}(pybind11::handle module);\n")
      string(APPEND calls "    register_${folder}(m);\n")
    endif()
  endforeach()
  file(CONFIGURE OUTPUT ${generated}/bindings.h @ONLY CONTENT "// Made by cmake/folders.cmake: a function for each folder of csrc/ that has a bind.cpp.
#pragma once

#include <pybind11/pytypes.h>

namespace nk {

${declarations}
inline void register_all(pybind11::handle m) {
${calls}}

}  // namespace nk
")

  file(GLOB entries CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/kernels/cpu/*/entries.h)
  set(includes "")
  set(families "")
  set(bf16_families "")
  foreach(header ${entries})
    get_filename_component(family ${header} DIRECTORY)
    get_filename_component(family ${family} NAME)
    set(type "")
    string(REPLACE "_" ";" words ${family})
    foreach(word ${words})
      string(SUBSTRING ${word} 0 1 first)
      string(SUBSTRING ${word} 1 -1 rest)
      string(TOUPPER ${first} first)
      string(APPEND type ${first}${rest})
    endforeach()
    string(APPEND includes "#include \"${header}\"\n")
    string(APPEND families " X(${family}, ${type}Entries)")
    file(GLOB bf16 CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cpu/${family}/*_avx512bf16.cpp)
    if(bf16)
      string(APPEND bf16_families " X(${family}, ${type}Entries)")
    endif()
  endforeach()
  file(CONFIGURE OUTPUT ${generated}/cpu_families.h @ONLY CONTENT "// Made by cmake/folders.cmake: X(family, type of its entries) for each folder of kernels/cpu/ that has an entries.h.
#pragma once

${includes}
#define NK_CPU_FAMILIES(X)${families}
// those that have kernels of their own for AVX-512-BF16
#define NK_CPU_BF16_FAMILIES(X)${bf16_families}
")

  set_source_files_properties(${PROJECT_SOURCE_DIR}/csrc/module.cpp PROPERTIES UNITY_GROUP module)
  target_sources(${target} PRIVATE ${PROJECT_SOURCE_DIR}/csrc/module.cpp ${sources})
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/csrc ${PROJECT_SOURCE_DIR} ${generated})
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
endfunction()
