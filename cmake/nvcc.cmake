# What nvcc adds to the tests: every .cu compiles for every architecture without spills, and the tests of tests/cpp run on
# a GPU if there is one.

execute_process(COMMAND ${HN_NVCC} --list-gpu-arch OUTPUT_VARIABLE known_archs RESULT_VARIABLE nvcc_failed)
if(nvcc_failed)
  message(STATUS "${HN_NVCC} does not run: the .cu files are tested under the shim only, no PTX is interpreted")
  return()
endif()

set(nvcc_flags -std=c++17 -O3 -I${CMAKE_SOURCE_DIR}/csrc -I${CMAKE_SOURCE_DIR}/tests/cpp
    -DHN_NO_TORCH -Xcompiler=-ffp-contract=off,-fno-strict-aliasing)

# --- The tests that launch kernels, but for those of the shim itself.
set(kernel_tests)
foreach(source ${tests})
  file(STRINGS ${source} launching REGEX "^#include \"(device|select_net)\\.h\"")
  if(launching AND NOT source MATCHES "/test_simt")
    list(APPEND kernel_tests ${source})
  endif()
endforeach()

# --- Compile checks of the kernels: one CTest per file and architecture; `check_cu` runs them all. The host's side is
# compiled where it is run.
file(GLOB_RECURSE cu_files CONFIGURE_DEPENDS csrc/*.cu tests/cpp/*.cu)
foreach(source ${cu_files})
  get_filename_component(name ${source} NAME_WE)
  foreach(arch ${HN_CHECK_ARCHS})
    string(REGEX REPLACE "[a-z]+$" "" number ${arch})
    if(NOT known_archs MATCHES "compute_${number}")
      message(STATUS "nvcc does not know sm_${arch}: not checked")
      continue()
    endif()
    set(test nvcc.${name}.sm_${arch})
    add_test(NAME ${test}
             COMMAND ${CMAKE_COMMAND} -DNVCC=${HN_NVCC} "-DFLAGS=${nvcc_flags}" -DARCH=${arch}
                     -DSOURCE=${source} -DOUT=${CMAKE_BINARY_DIR}/${test}.out
                     -P ${CMAKE_SOURCE_DIR}/cmake/check_cu.cmake)
    set_tests_properties(${test} PROPERTIES LABELS nvcc TIMEOUT 600)
  endforeach()
endforeach()
add_custom_target(check_cu COMMAND ${CMAKE_CTEST_COMMAND} -L nvcc --output-on-failure)

include(${CMAKE_CURRENT_LIST_DIR}/ptx.cmake)

# --- The same test files as CUDA programs.
if(HN_GPU_TESTS STREQUAL "AUTO")
  if(EXISTS /dev/nvidiactl)
    set(gpu_tests ON)
  else()
    set(gpu_tests OFF)
  endif()
else()
  set(gpu_tests ${HN_GPU_TESTS})
endif()
if(gpu_tests)
  set(HN_GPU_ARCH native CACHE STRING "Architecture of the GPU tests, as nvcc -arch takes it")
  set(programs)
  foreach(source ${kernel_tests})
    get_filename_component(name ${source} NAME_WE)
    add_custom_command(
      OUTPUT ${name}_gpu
      COMMAND ${HN_NVCC} ${nvcc_flags} -arch=${HN_GPU_ARCH} -lineinfo -MD -MF ${name}_gpu.d -x cu ${source}
              -Xlinker $<TARGET_FILE:hn_cpu_loops> -o ${name}_gpu
      DEPENDS ${source} hn_cpu_loops
      DEPFILE ${name}_gpu.d
      COMMENT "Building ${name}_gpu")
    list(APPEND programs ${name}_gpu)
    add_test(NAME ${name}_gpu COMMAND ${CMAKE_BINARY_DIR}/${name}_gpu)
    set_tests_properties(${name}_gpu PROPERTIES LABELS gpu TIMEOUT 300)
  endforeach()
  add_custom_target(gpu_tests ALL DEPENDS ${programs})
endif()
