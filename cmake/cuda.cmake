# CUDA kernels: finds nvcc and compiles every kernels/cuda/<family>/<file>.cu to <family>_<file>.fatbin. The PTX of each
# kernel is packed once more by itself, in <family>_<file>.kernels: chips without machine code here compile that.
#
# <file>_sm90a.cu has instructions of one architecture (wgmma, setmaxnreg), which ptxas refuses elsewhere: it is compiled
# for that alone, if NEUROKERN_CUDA_ARCHS names it, and csrc/driver takes it there (driver::variant).
#
# NEUROKERN_CUDA        AUTO: with CUDA when nvcc can be had; ON: an error without it; OFF: never.
# NEUROKERN_CUDA_ARCHS  what to make machine code for, e.g. "80;90a"; PTX of the first one is kept for later chips.
# NEUROKERN_NVCC        the compiler, instead of the first that works of those that nvcc.py finds.
# The first two are also read from the environment, for `pip install .`, anew at each configuration: -D is kept, but
# what the environment said last time binds nobody.

# sm_80 runs on 8.x, sm_90a on 9.0, and the driver compiles the PTX for whatever comes later. All of it comes from
# one run of the front end, which takes most of the time.
set(default_NEUROKERN_CUDA AUTO)
set(default_NEUROKERN_CUDA_ARCHS 80 90a)
foreach(option NEUROKERN_CUDA NEUROKERN_CUDA_ARCHS)
  if(NOT DEFINED ${option} AND NOT "$ENV{${option}}" STREQUAL "")
    set(${option} "$ENV{${option}}")
  elseif(NOT DEFINED ${option})
    set(${option} ${default_${option}})
  endif()
endforeach()

# Whether an nvcc can compile at all (a host compiler that it accepts, its headers beside it).
function(nk_nvcc_works nvcc result)
  set(probe ${PROJECT_BINARY_DIR}/cuda_probe)
  file(WRITE ${probe}.cu "#include <cuda_fp16.h>\nextern \"C\" __global__ void probe(__half* x) { *x = __float2half(1.f); }\n")
  execute_process(COMMAND ${nvcc} -arch=sm_80 -fatbin -o ${probe}.fatbin ${probe}.cu RESULT_VARIABLE code
                  OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if(code)
    string(REGEX REPLACE "\n.*" "" first_line "${text}")
    message(STATUS "CUDA: ${nvcc} does not compile: ${first_line}")
    set(${result} FALSE PARENT_SCOPE)
  else()
    set(${result} TRUE PARENT_SCOPE)
  endif()
endfunction()

# The machine's nvcc, or else the one of the PyPI wheels in the building interpreter's site-packages. What was found
# is asked again whether it works when others are there to choose from.
function(nk_find_nvcc result)
  if(NEUROKERN_NVCC AND EXISTS ${NEUROKERN_NVCC})
    set(${result} ${NEUROKERN_NVCC} PARENT_SCOPE)
    return()
  endif()
  execute_process(COMMAND ${Python_EXECUTABLE} ${PROJECT_SOURCE_DIR}/cmake/nvcc.py find OUTPUT_VARIABLE candidates
                  OUTPUT_STRIP_TRAILING_WHITESPACE)
  string(REPLACE "\n" ";" candidates "${candidates}")
  if(NOT candidates STREQUAL NEUROKERN_NVCC_AMONG OR NOT EXISTS "${NEUROKERN_NVCC_FOUND}")
    unset(NEUROKERN_NVCC_FOUND CACHE)
    foreach(candidate ${candidates})
      nk_nvcc_works(${candidate} works)
      if(works)
        set(NEUROKERN_NVCC_AMONG "${candidates}" CACHE INTERNAL "what nvcc.py found")
        set(NEUROKERN_NVCC_FOUND ${candidate} CACHE INTERNAL "the first of it that works")
        break()
      endif()
    endforeach()
  endif()
  set(${result} "${NEUROKERN_NVCC_FOUND}" PARENT_SCOPE)
endfunction()

function(nk_add_cuda_kernels)
  if(NEUROKERN_CUDA STREQUAL "OFF")
    message(STATUS "CUDA: off as asked; building without CUDA kernels")
    return()
  endif()
  nk_find_nvcc(nvcc)
  if(NOT nvcc)
    if(NEUROKERN_CUDA STREQUAL "ON")
      message(FATAL_ERROR "CUDA: NEUROKERN_CUDA=ON, but there is no nvcc on the machine nor among PyPI's wheels")
    endif()
    message(STATUS "CUDA: no nvcc on the machine nor among PyPI's wheels; building without CUDA kernels")
    return()
  endif()
  message(STATUS "CUDA: ${nvcc}, architectures ${NEUROKERN_CUDA_ARCHS}")

  list(FILTER NEUROKERN_CUDA_ARCHS EXCLUDE REGEX "-virtual$")  # CMake's word for PTX, which is there anyway
  list(TRANSFORM NEUROKERN_CUDA_ARCHS REPLACE "[a-z]+$" "" OUTPUT_VARIABLE numbers)
  list(SORT numbers COMPARE NATURAL)
  list(GET numbers 0 base)
  list(TRANSFORM NEUROKERN_CUDA_ARCHS PREPEND sm_ OUTPUT_VARIABLE machines)
  list(JOIN machines "," machines)
  # -fmad=false: products and sums are fused where the source says so, as on the CPU, so both round alike.
  # The emulator reads the PTX: with its source lines, packed by LZ4. The machine code stays without them, a third as large.
  set(flags -fmad=false -lineinfo -Xptxas=--suppress-debug-info --compress-mode=speed)
  set(code_of_all -gencode=arch=compute_${base},code=[${machines},compute_${base}])

  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cuda/*/*.cu)
  set(out ${PROJECT_BINARY_DIR}/cuda)
  set(driver ${Python_EXECUTABLE} ${PROJECT_SOURCE_DIR}/cmake/nvcc.py)
  set(images ${PROJECT_SOURCE_DIR}/cmake/images.py)
  set(fatbins "")
  set(records "")
  foreach(source ${sources})
    get_filename_component(file ${source} NAME_WE)
    get_filename_component(family ${source} DIRECTORY)
    get_filename_component(family ${family} NAME)
    set(name ${family}_${file})
    set(code ${code_of_all})
    if(file MATCHES "_sm([0-9]+a)$")
      set(arch ${CMAKE_MATCH_1})
      if(NOT arch IN_LIST NEUROKERN_CUDA_ARCHS)
        continue()
      endif()
      set(code -gencode=arch=compute_${arch},code=[sm_${arch},compute_${arch}])
    endif()
    add_custom_command(
      OUTPUT ${out}/${name}.fatbin ${out}/${name}.resources.txt
      COMMAND ${driver} compile ${nvcc} ${source} ${out}/${name} -- ${flags} ${code}
      DEPENDS ${source} ${PROJECT_SOURCE_DIR}/cmake/nvcc.py
      DEPFILE ${out}/${name}.d
      COMMENT "CUDA: compiling ${name}"
      VERBATIM)
    add_custom_command(
      OUTPUT ${out}/${name}.kernels
      COMMAND ${Python_EXECUTABLE} ${images} split ${nvcc} ${out}/${name}.fatbin ${out}/${name}.kernels
      DEPENDS ${out}/${name}.fatbin ${images}
      VERBATIM)
    list(APPEND fatbins ${out}/${name}.fatbin ${out}/${name}.kernels)
    list(APPEND records ${out}/${name}.resources.txt)
  endforeach()
  add_custom_command(
    OUTPUT ${out}/resources.json ${out}/build.txt
    COMMAND ${driver} collect ${out}/resources.json ${nvcc} ${base} ${records}
    DEPENDS ${records} ${PROJECT_SOURCE_DIR}/cmake/nvcc.py
    COMMENT "CUDA: registers, spills and shared memory of every kernel"
    VERBATIM)
  add_custom_target(cuda_kernels ALL DEPENDS ${fatbins} ${out}/resources.json)
  install(FILES ${fatbins} ${out}/resources.json ${out}/build.txt DESTINATION neurokern/_cuda)
endfunction()
