# CPU kernels: the same sources once per instruction set, each an object library with its own flags and namespace.
# AVX-512-BF16 differs in products of bfloat16 alone (its conversion flushes subnormals): of that level, only the files
# whose names end in it.

set(NK_ISAS scalar avx2 avx512 avx512bf16)
# Not -O3: it takes four times as long to compile, for processors from before 2013.
set(NK_FLAGS_scalar -O2)
set(NK_FLAGS_avx2 -mavx2 -mfma -mf16c -mbmi2)
set(NK_FLAGS_avx512 ${NK_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512cd
                    -mprefer-vector-width=512)
set(NK_FLAGS_avx512bf16 ${NK_FLAGS_avx512} -mavx512bf16 -mavx512vnni -mavx512vbmi)

function(nk_add_cpu_kernels target)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cpu/*/*.cpp)
  set(bf16_sources ${sources})
  list(FILTER bf16_sources INCLUDE REGEX "_avx512bf16\\.cpp$")
  list(FILTER sources EXCLUDE REGEX "_avx512bf16\\.cpp$")
  foreach(isa ${NK_ISAS})
    if(isa STREQUAL avx512bf16)
      set(sources ${bf16_sources})
    endif()
    add_library(cpu_${isa} OBJECT ${sources})
    target_compile_features(cpu_${isa} PRIVATE cxx_std_20)
    target_compile_definitions(cpu_${isa} PRIVATE NK_ISA=${isa} NK_ISA_${isa}=1)
    # Fused multiply-adds only where the source says so, so that all levels round alike; NaN and infinities are kept.
    target_compile_options(cpu_${isa} PRIVATE -O3 -fno-math-errno -fno-trapping-math -ffp-contract=off
                           -fvisibility=hidden -fno-exceptions -fno-rtti -Wall -Wextra ${NK_FLAGS_${isa}})
    set_target_properties(cpu_${isa} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    target_link_libraries(${target} PRIVATE cpu_${isa})
  endforeach()
endfunction()
